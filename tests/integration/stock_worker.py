"""A stock Celery worker app for the producer's tests: nothing of ours in it but the task's name.

It writes what it is given into a Redis list, for the test to read.
"""

from __future__ import annotations

import json
import os
from typing import Any

import redis
from celery import Celery

SEEN = "seen"

app = Celery("stock", broker=os.environ["STOCK_BROKER"])
app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False)


@app.task(bind=True, name="notify_tasks.send_notification")
def send(self: Any, *args: Any, **kwargs: Any) -> None:
    seen = {
        "id": self.request.id,
        "root_id": self.request.root_id,
        "args": args,
        "kwargs": kwargs,
        "queue": self.request.delivery_info["routing_key"],
        "headers": self.request.headers,
        "shown": self.request.argsrepr,
    }
    with redis.Redis.from_url(os.environ["STOCK_BROKER"]) as client:
        client.rpush(SEEN, json.dumps(seen))
