"""What a worker does about a webhook's endpoint besides sending: its own secrets, and when it is disabled.

It costs one statement for each call of the channel `webhook`, and another one where an endpoint fails or has failed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from channels.contract import AddressInvalid, ChannelError, Refused, TryLater, Unavailable, Uncertain
from notify_tasks.retrying import DEAD
from notify_tasks.settings import NEW_KEY
from notify_tasks.store import endpoints
from notify_tasks.store.database import Database
from notify_tasks.store.deliveries import Claimed

logger = logging.getLogger(__name__)

CHANNEL: Final = "webhook"
DISABLED: Final = "endpoint_disabled"
NO_KEY: Final = "secret_key_missing"
WRONG_KEY: Final = "secret_key_wrong"
_OURS: Final = "provider_bug"
"""The code of a failure that is a fault of ours."""
_SAID_AGAIN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a worker knows of an endpoint when it sends.

    Args:
        secrets: what to sign with, the newest first; none where the provider's own do.
        failing: it has failed since its last success.
        blocked: why nothing may be sent now: `endpoint_disabled`, or no key here opens its secrets.
    """

    secrets: tuple[str, ...] = field(default=(), repr=False)
    failing: bool = False
    blocked: str | None = None


ORDINARY: Final = Endpoint()


class Webhooks:
    """Looks endpoints up, and notes how they fare. What goes elsewhere, or to the sandbox, costs nothing.

    Args:
        database: the store; without it nothing is known of any endpoint.
        secret_key: the setting; without it nothing is sent to an endpoint that has secrets.
        failing: seconds after which an endpoint that fails is disabled.
    """

    def __init__(
        self, database: Database | None, *, secret_key: str | None = None, failing: float = 0.0
    ) -> None:
        self._database = database
        self._secret_key = secret_key
        self._failing = failing
        self._said_at = float("-inf")

    def look(self, delivery: Claimed) -> Endpoint:
        """What must be known before a message is sent.

        Raises:
            DatabaseAway: ask again.
        """
        database = self._store(delivery)
        if database is None:
            return ORDINARY
        found = endpoints.standing(database, delivery.tenant, delivery.address)
        if found.disabled:
            return Endpoint(blocked=DISABLED)
        if not found.secrets:
            return Endpoint(failing=found.failing)
        return self._opened(found.secrets, failing=found.failing)

    def _opened(self, stored: Sequence[bytes], *, failing: bool) -> Endpoint:
        # Loaded where there is something to open: it takes 9 MB of every process.
        from notify_tasks.secret_box import CannotOpen, SecretBox  # noqa: PLC0415

        if self._secret_key is None:
            self._say(
                "NOTIFY_SECRET_KEY is not set here: what goes to registered webhook endpoints is held. Set the key "
                f"that `notify endpoints register` used; a first one is made with {NEW_KEY}"
            )
            return Endpoint(blocked=NO_KEY)
        box = SecretBox(self._secret_key)
        try:
            return Endpoint(tuple(box.open(each) for each in stored), failing)
        except CannotOpen:
            self._say(
                "NOTIFY_SECRET_KEY does not open a webhook endpoint's secret: what goes there is held. Put the key "
                "that it was stored under behind the present one"
            )
            return Endpoint(blocked=WRONG_KEY)

    def _say(self, what: str) -> None:
        """Tell the operator, once a minute: thousands of messages may wait."""
        now = time.monotonic()
        if now - self._said_at >= _SAID_AGAIN_SECONDS:
            self._said_at = now
            logger.error("%s", what)

    def _store(self, delivery: Claimed) -> Database | None:
        return self._database if delivery.channel == CHANNEL and not delivery.sandbox else None

    def suppression(self, delivery: Claimed, reason: str | None) -> str | None:
        """Why the address is to be suppressed: an endpoint that is gone is disabled instead, and can be enabled."""
        return None if reason == DEAD and self._store(delivery) is not None else reason

    def failed(self, delivery: Claimed, error: ChannelError) -> None:
        """Note what an endpoint did not take.

        Raises:
            DatabaseAway: note it again, which does no harm.
        """
        database = self._store(delivery)
        if database is None:
            return
        tenant, url = delivery.tenant, delivery.address
        if isinstance(error, AddressInvalid):
            gone = endpoints.gone(database, tenant, url)
            if gone is not None:
                logger.warning(
                    "webhook endpoint %s is disabled: it is gone (%s); see `notify endpoints show %s`",
                    gone,
                    error.code,
                    gone,
                )
        elif _is_its_own(error):
            given_up = endpoints.failed(database, tenant, url, self._failing)
            if given_up is not None:
                logger.warning(
                    "webhook endpoint %s is disabled: it has failed for %.1f days, at last with %s; see "
                    "`notify endpoints show %s`",
                    given_up,
                    self._failing / 86400,
                    error.code,
                    given_up,
                )

    def took(self, delivery: Claimed, endpoint: Endpoint) -> None:
        """Note that an endpoint took a message, where it had failed before.

        Raises:
            DatabaseAway: as `failed`.
        """
        database = self._store(delivery)
        if database is not None and endpoint.failing:
            endpoints.well(database, delivery.tenant, delivery.address)


def _is_its_own(error: ChannelError) -> bool:
    """Whether the endpoint fails, and not this one message: a refusal counts where the endpoint itself answered."""
    if isinstance(error, Refused):
        return error.code.isdecimal()
    return isinstance(error, TryLater | Uncertain | Unavailable) and error.code != _OURS
