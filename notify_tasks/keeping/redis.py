"""A call becomes a message on Redis, and an entry in the ledger, which outlives a message that gets lost."""

from __future__ import annotations

import json
from collections.abc import Mapping

from notify_tasks.broker import Broker, Outgoing, Raw, Refused, Unanswered, Unreachable
from notify_tasks.errors import MaybeAccepted, NotAccepted
from notify_tasks.messages import shown
from notify_tasks.notification import Notification
from notify_tasks.routing import INTAKE, NORMAL, SEND_TASK, queue_for


class RedisKeeper:
    """Keeps calls in Redis.

    Args:
        url: the broker's.
        timeout: seconds for one call.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._broker = Broker(url, timeout)

    def keep(self, notification: Notification, headers: Mapping[str, object], *, deadline: float) -> None:
        """Publish the call. A Redis that cannot be reached makes it `MaybeAccepted` as well.

        That nothing was sent is often known then. But the remedy is the same, and so the caller has one case
        to handle: repeat the call with its id.
        """
        try:
            self._broker.publish([message_of(notification, headers)], deadline=deadline)
        except Refused as error:
            raise NotAccepted(notification.message_id, str(error)) from None
        except (Unreachable, Unanswered) as error:
            raise MaybeAccepted(notification.message_id, str(error)) from None

    def close(self) -> None:
        """Close idle connections."""
        self._broker.close()


def queue_of(notification: Notification) -> str:
    """Straight to its channel where there is one recipient and one channel; else by way of intake."""
    lane = notification.priority or NORMAL
    if len(notification.to) == 1 and notification.channels is not None and len(notification.channels) == 1:
        return queue_for(notification.channels[0], lane)
    return queue_for(INTAKE, lane)


def message_of(notification: Notification, headers: Mapping[str, object]) -> Outgoing:
    """The Celery message. What logs and Flower show of it is nothing personal."""
    queue = queue_of(notification)
    envelope = Raw(json.dumps(notification.to_wire(), separators=(",", ":")))
    return Outgoing(
        task=SEND_TASK,
        args=(envelope,),
        queue=queue,
        task_id=notification.message_id,
        argsrepr=shown(
            notification.event_type, notification.message_id, ",".join(notification.channels or ())
        ),
        headers=headers,
        ledger_field=f"{notification.tenant}/{notification.message_id}/{notification.hash}",
        ledger_value=f'{{"queue":{json.dumps(queue)},"envelope":{envelope}}}',
    )
