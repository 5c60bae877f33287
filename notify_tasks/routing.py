"""Names that both sides share: queues, lanes, tasks, Redis keys and transport options. Pure."""

from __future__ import annotations

from typing import Any, Final

CHANNELS: Final = ("email", "sms", "push", "webpush", "inapp", "webhook", "chat")
LANES: Final = ("high", "normal", "bulk")
NORMAL: Final = "normal"
INTAKE: Final = "intake"

MAINT_QUEUE: Final = "notify.maint"
RECEIPTS_QUEUE: Final = "notify.receipts"

SEND_TASK: Final = "notify_tasks.send_notification"
DELIVER_TASK: Final = "notify_tasks.deliver"
MARKER_TASK: Final = "notify_tasks.marker"
SWEEP_TASK: Final = "notify_tasks.sweep"
RECEIPTS_TASK: Final = "notify_tasks.receipts"
PURGE_TASK: Final = "notify_tasks.purge"

LEDGER_BUCKET_SECONDS: Final = 10
"""The ledger is one Redis hash for each queue and every ten seconds of Redis time."""
LEDGER_PREFIX: Final = "notify.ledger."
LEDGER_HEADER: Final = "notify_ledger"
"""Message header: `[key, field]`, where whoever accepts the message finds its ledger entry."""
SENT_AT_HEADER: Final = "notify_sent_at"
"""Message header: when it was published, in seconds since 1970 by the publisher's clock."""
PARKED_KEY: Final = "notify.parked"
"""Redis list of messages that no worker can read; the sweep moves it into PostgreSQL."""
TAKEN_HEADER: Final = "notify_taken"
"""Message header: how often the message was put back without an end."""

VISIBILITY_TIMEOUT: Final = 300
"""Seconds until an unacknowledged message is put back. The shortest one of any process on the same Redis wins."""


def queue_for(stage: str, lane: str = NORMAL) -> str:
    """The queue of a channel (or of `intake`) in a lane: `notify.email`, `notify.email.high`."""
    return f"notify.{stage}" if lane == NORMAL else f"notify.{stage}.{lane}"


def stage_and_lane(queue: str) -> tuple[str, str]:
    """The reverse of `queue_for`: `("email", "high")`."""
    parts = queue.split(".")
    return parts[1], parts[2] if len(parts) > 2 else NORMAL  # noqa: PLR2004 - notify.<stage>.<lane>


STAGES: Final = (INTAKE, *CHANNELS)
WORK_QUEUES: Final = tuple(queue_for(stage, lane) for stage in STAGES for lane in LANES)
"""Every queue that carries notifications: each stage in each lane."""
ALL_QUEUES: Final = (*WORK_QUEUES, MAINT_QUEUE, RECEIPTS_QUEUE)


def ledger_key(bucket: int, queue: str) -> str:
    """The Redis hash of one queue's messages in one ten-second bucket of Redis time."""
    return f"{LEDGER_PREFIX}{bucket}.{queue}"


def ledger_place(key: str) -> tuple[int, str]:
    """The reverse of `ledger_key`: `(bucket, queue)`."""
    bucket, _, queue = key.removeprefix(LEDGER_PREFIX).partition(".")
    return int(bucket), queue


def inbox_topic(tenant: str, recipient_id: str) -> str:
    """The Redis channel on which live readers of an in-app inbox are told of messages and of marks."""
    return f"notify.inbox.{tenant}.{recipient_id}"


def transport_options() -> dict[str, Any]:
    """Options of the Redis transport, the same for every process on one Redis.

    The defaults would put a lost message back after an hour, check for it every 100 s, and let at most ten
    connections acknowledge.
    """
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        "max_connections": 256,
        "socket_timeout": 5,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 15,
    }
