"""A worker whose loop can be blocked: while the file that BLOCK_WHILE names exists, it fetches nothing."""

import os
import time
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks

from notify_tasks.celery import app

FILE = Path(os.environ["BLOCK_WHILE"])


class Block(bootsteps.StartStopStep):
    requires = (Tasks,)

    def start(self, consumer: Any) -> None:
        consumer.timer.call_repeatedly(0.2, self.block)

    def block(self) -> None:
        while FILE.exists():
            time.sleep(0.1)


app.steps["consumer"].add(Block)

__all__ = ["app"]
