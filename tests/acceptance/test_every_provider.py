"""Every provider, broken in every way, in the workers of a fleet: how its deliveries end, and who takes over.

All providers of a channel share its pool, and all are broken in the same way at once; behind them stands one that is
well, at a far end of its own. `TABLE` is what `channels/*/*.py` promise, as an operator reads it afterwards: the
outcome of the attempt, the provider's own code, and how the delivery ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest
from faults.fleet import RunningFleet, beat, running_fleet

from notify_tasks import send_notification
from notify_tasks.notification import uuid7
from notify_tasks.routing import CHANNELS, MAINT_QUEUE, queue_for
from notify_tasks.sandbox import effects_by_delivery
from notify_tasks.sandbox.credentials import webpush_subscription
from notify_tasks.sandbox.process import Sandbox, start_sandbox
from notify_tasks.supervising import worker_spec

FAULTS: Final = ("hang", "429", "500", "dead", "wrong_key")
"""In this order: a wrong key opens breakers."""
EACH: Final = 6
MOST: Final = 60
"""So many messages of a channel are sent at once, and in all, until each of its providers has had one."""

TYPE: Final = """
category = "test"
channels = ["email"]
expires = "1h"
on_doubt = "hold"

[payload]
type = "object"
"""
FILES: Final = {
    "notification.toml": TYPE,
    "example.json": "{}",
    "email.subject.txt": "Ping",
    "email.txt": "Ping",
    "email.html": "<p>Ping</p>",
    "sms.txt": "Ping",
    "push.json": '{"title": "Ping", "body": "Ping"}',
    "webpush.json": '{"title": "Ping", "body": "Ping"}',
    "webhook.json": '{"ping": true}',
    "chat.md": "Ping",
}

PROVIDERS: Final = {
    "smtp": """use = "email.smtp"
url = "env:SANDBOX_SMTP_URL"
ca_file = "env:SANDBOX_CA_FILE"
connection_messages = 1
sender = "Shop <hello@shop.example>" """,
    "sendgrid": """use = "email.sendgrid"
url = "env:SANDBOX_URL"
ca_file = "env:SANDBOX_CA_FILE"
api_key = "env:SANDBOX_SENDGRID_API_KEY"
sender = "Shop <hello@shop.example>" """,
    "twilio": """use = "sms.twilio"
url = "env:SANDBOX_URL"
ca_file = "env:SANDBOX_CA_FILE"
account_sid = "env:SANDBOX_TWILIO_ACCOUNT_SID"
auth_token = "env:SANDBOX_TWILIO_AUTH_TOKEN"
status_callback = "https://127.0.0.1:1/hooks/twilio"
from = "+15005550006" """,
    "aliyun": """use = "sms.aliyun"
url = "env:SANDBOX_URL"
ca_file = "env:SANDBOX_CA_FILE"
access_key_id = "env:SANDBOX_ALIYUN_ACCESS_KEY_ID"
access_key_secret = "env:SANDBOX_ALIYUN_ACCESS_KEY_SECRET"
sign_name = "Sandbox"
templates = { "test.ping" = { code = "SMS_154950909", text = "${content}" } }""",
    "gateway": """use = "sms.http"
url = "env:SANDBOX_HTTP_URL"
path = "/v1/sms/messages"
body = { to = "{to}", text = "{text}", delivery_id = "{id}", capability = "opaque" }
statuses = { "410" = "address-invalid" }
id = "id" """,
    "fcm": """use = "push.fcm"
url = "env:SANDBOX_URL"
ca_file = "env:SANDBOX_CA_FILE"
credentials = "env:SANDBOX_FCM_CREDENTIALS" """,
    "webpush": """use = "webpush.vapid"
private_key = "env:SANDBOX_VAPID_PRIVATE_KEY"
subject = "mailto:sandbox@example.com"
hosts = ["127.0.0.1"]
allowed_private_cidrs = ["127.0.0.0/8"]
ports = "any"
ca_file = "env:SANDBOX_CA_FILE" """,
    "webhook": """use = "webhook.standard"
secrets = ["env:SANDBOX_WEBHOOK_SECRET"]
allowed_private_cidrs = ["127.0.0.0/8"]
ports = "any"
ca_file = "env:SANDBOX_CA_FILE" """,
    "slack": "",
    "teams": "",
    "dingtalk": "",
    "feishu": "",
    "wecom": "",
}
CHANNEL: Final = {
    "email": ("smtp", "sendgrid"),
    "sms": ("twilio", "aliyun", "gateway"),
    "push": ("fcm",),
    "webpush": ("webpush",),
    "webhook": ("webhook",),
    "chat": ("slack", "teams", "dingtalk", "feishu", "wecom"),
}
CHANNEL_OF: Final = {name: channel for channel, names in CHANNEL.items() for name in names}
SIGNED: Final = {"dingtalk": "SANDBOX_DINGTALK_SECRET", "feishu": "SANDBOX_FEISHU_SECRET"}
TARGETS: Final = {"gateway": "sms"}
"""What the far end calls a provider, where it is not our name."""

MODES: Final[Mapping[str, Mapping[str, str]]] = {
    "hang": {"": "hang_before_accept", "smtp": "hang_after_dot"},
    "429": {"": "429", "smtp": "421", "dingtalk": "throttled", "feishu": "throttled", "wecom": "throttled"},
    "500": {"": "500", "smtp": "554"},
    "dead": {"": "dead_address", "smtp": "550", "gateway": "410"},
    "wrong_key": {"": "wrong_key", "smtp": "535", "gateway": "401"},
}


@dataclass(frozen=True)
class Seen:
    """A delivery at its end: its attempts as `provider outcome code`."""

    id: str
    channel: str
    state: str
    attempts: tuple[tuple[str, str, str], ...]


@dataclass
class Stage:
    """The fleet, its far end, and the one of those that take over."""

    fleet: RunningFleet
    backup: Sandbox

    def seen(self, ids: list[str]) -> list[Seen]:
        rows: Any = self.fleet.rows(
            "SELECT d.id::text, d.channel, d.state, coalesce(array_agg(ARRAY[a.provider, a.outcome, a.code]"
            " ORDER BY a.fence) FILTER (WHERE a.token IS NOT NULL), '{}') FROM notify.delivery d"
            " LEFT JOIN notify.attempt a ON a.delivery_id = d.id WHERE d.message_id = ANY(%s) GROUP BY d.id",
            ids,
        )
        return [Seen(*row[:3], tuple(tuple(each) for each in row[3])) for row in rows]

    def tried(self, ids: list[str]) -> bool:
        """Whether everything has met a provider, or cannot any more."""
        found = self.seen(ids)
        return len(found) == len(ids) and all(
            it.state == "suppressed" or (it.attempts and it.attempts[0][1]) for it in found
        )

    def ended(self, ids: list[str], channels: Collection[str] | None = None) -> bool:
        """Whether everything has ended, of some channels or of all; then what waits for a next try waits no longer."""
        if channels is not None:
            return all(it.state == "sent" for it in self.seen(ids) if it.channel in channels)
        self.fleet.rows(
            "UPDATE notify.delivery SET due_at = now(), not_before = NULL"
            " WHERE state IN ('held', 'retrying') RETURNING id"
        )
        found = self.seen(ids)
        ends = {"sent", "failed", "in_doubt", "suppressed"}
        return len(found) == len(ids) and all(it.state in ends for it in found)


def _config(backup: Sandbox) -> str:
    parts = []
    for channel, names in CHANNEL.items():
        for name in names:
            body = PROVIDERS[name] or _rooms(name)
            parts.append(f"[providers.{name}]\n{body}\ntimeout = 2\n")
        parts.append(
            f'[providers.backup-{channel}]\nuse = "{channel}.sandbox"\nurl = "{backup.http_url}"\ntimeout = 2\n'
        )
        pool = [f'{{ provider = "{name}", weight = 1 }}' for name in names]
        pool.append(f'{{ provider = "backup-{channel}", weight = 0 }}')
        parts.append(f"[channels.{channel}]\npool = [{', '.join(pool)}]\n")
    return "\n".join(parts)


def _rooms(name: str) -> str:
    """A room for each fault, behind one hook: a dead room is suppressed, and is another one's for the next fault."""
    hook = f'url = "env:SANDBOX_{name.upper()}_HOOK"'
    secret = f', secret = "env:{SIGNED[name]}"' if name in SIGNED else ""
    names = [*FAULTS, *(f"dead-{n}" for n in range(1, MOST + 1))]
    rooms = ", ".join(f'"{room}" = {{ {hook}{secret} }}' for room in names)
    return f'use = "chat.{name}"\nca_file = "env:SANDBOX_CA_FILE"\nrooms = {{ {rooms} }}'


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("providers")
    folder = directory / "templates" / "test.ping"
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    with ExitStack() as stack:
        backup = start_sandbox(directory / "backup")
        stack.callback(backup.stop)
        config = directory / "every.toml"
        config.write_text(_config(backup))
        queues = [queue_for(it, "normal") for it in ("intake", *CHANNELS)]
        specs = [worker_spec("worker", [*queues, MAINT_QUEUE], threads=24), beat()]
        environment = {
            "NOTIFY_CONFIG": str(config),
            "NOTIFY_TEMPLATES": str(folder.parent),
        }
        fleet = stack.enter_context(running_fleet(directory, specs, environment=environment))
        yield Stage(fleet, backup)


def _address(stage: Stage, channel: str, fault: str, n: int) -> str:
    origin = stage.fleet.sandbox.ready.https_url
    found: Mapping[str, str] = {
        "email": f"{fault.replace('_', '-')}-{n}@example.com",
        "sms": f"+861390000{FAULTS.index(fault)}{n:03}",
        "push": f"token-{fault}-{n}",
        "webpush": webpush_subscription(origin, f"browser-{fault}-{n}"),
        "webhook": f"{origin}/webhooks/{fault}-{n}",
        "chat": f"dead-{n}" if fault == "dead" else fault,
    }
    return found[channel]


def _send(stage: Stage, fault: str, channel: str, first: int) -> list[str]:
    ids = []
    for n in range(first, first + EACH):
        ids.append(str(uuid7()))
        to: Any = {channel: _address(stage, channel, fault, n)}
        send_notification.delay("test.ping", to=to, payload={}, channels=[channel], message_id=ids[-1])
    return ids


def _wait(what: str, condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def play(stage: Stage, fault: str) -> list[Seen]:
    """Break everything in one way until each provider has met it; then mend it, and see how all of it ends."""
    modes = MODES[fault]
    for name in TABLE[fault]:
        mode = modes.get(name, modes[""])
        extra = {"retry_after": 1} if mode == "429" else {}
        stage.fleet.sandbox.set_mode(TARGETS.get(name, name), mode, **extra)
    ids: list[str] = []
    met: set[str] = set()
    for first in range(1, MOST + 1, EACH):
        for channel, names in CHANNEL.items():
            if not met.issuperset(set(names) & TABLE[fault].keys()):
                ids += _send(stage, fault, channel, first)
        _wait(f"{fault}: nothing is tried", partial(stage.tried, ids), 30)
        met = {
            provider
            for it in stage.seen(ids)
            for provider, outcome, _ in it.attempts
            if outcome != "accepted"
        }
        if met.issuperset(TABLE[fault]):
            break
    assert met.issuperset(TABLE[fault]), f"{fault}: {sorted(TABLE[fault].keys() - met)} were never asked"
    # Another provider takes over while the fault lasts, and at once: no wait of the retries is over by then.
    over = {CHANNEL_OF[name] for name, (_, _, ends) in TABLE[fault].items() if ends == BACKUP}
    _wait(f"{fault}: nobody takes over", partial(stage.ended, ids, channels=over), 20)
    stage.fleet.sandbox.clear_modes()
    _wait(f"{fault}: something does not end", partial(stage.ended, ids), 60)
    return stage.seen(ids)


# --- what must come of it -------------------------------------------------------------------------------

DOUBT: Final = ("uncertain", "timeout", "in_doubt")
BACKUP: Final = "backup"
TABLE: Final[Mapping[str, Mapping[str, tuple[str, str, str]]]] = {
    # An opaque provider's lost answer is in doubt, and not sent again: the type says hold. A webhook's receiver knows
    # its id, so it is sent again.
    "hang": {
        **dict.fromkeys(PROVIDERS, DOUBT),
        "smtp": ("uncertain", "deadline", "in_doubt"),
        "webhook": ("uncertain", "timeout", "sent"),
    },
    "429": {
        **dict.fromkeys(PROVIDERS, ("throttled", "429", "sent")),
        "smtp": ("throttled", "421 4.7.0", "sent"),
        "twilio": ("throttled", "20429", "sent"),
        "aliyun": ("throttled", "Throttling.User", "sent"),
        "fcm": ("throttled", "QUOTA_EXCEEDED", "sent"),
        "slack": ("throttled", "rate_limited", "sent"),
        "dingtalk": ("throttled", "130101", "sent"),
        "feishu": ("throttled", "11232", "sent"),
        "wecom": ("throttled", "45009", "sent"),
    },
    "500": {
        **dict.fromkeys(PROVIDERS, ("uncertain", "500", "in_doubt")),
        "smtp": ("refused", "554 5.7.1", "failed"),
        "twilio": ("uncertain", "20500", "in_doubt"),
        "aliyun": ("uncertain", "InternalError", "in_doubt"),
        "fcm": ("try_later", "INTERNAL", "sent"),
        "webhook": ("try_later", "500", "sent"),
        "slack": ("uncertain", "rollup_error", "in_doubt"),
    },
    # Teams, Feishu and WeCom say the same of a room that is gone as of a wrong URL: see "wrong_key".
    "dead": {
        "smtp": ("address_invalid", "550 5.1.1", "failed"),
        "sendgrid": ("address_invalid", "400", "failed"),
        "twilio": ("address_invalid", "21211", "failed"),
        "aliyun": ("address_invalid", "isv.MOBILE_NUMBER_ILLEGAL", "failed"),
        "gateway": ("address_invalid", "410", "failed"),
        "fcm": ("address_invalid", "UNREGISTERED", "failed"),
        "webpush": ("address_invalid", "410", "failed"),
        "webhook": ("address_invalid", "410", "failed"),
        "slack": ("address_invalid", "channel_is_archived", "failed"),
        "dingtalk": ("address_invalid", "400013", "failed"),
    },
    "wrong_key": {
        "smtp": ("misconfigured", "535 5.7.8", BACKUP),
        "sendgrid": ("misconfigured", "401", BACKUP),
        "twilio": ("misconfigured", "20003", BACKUP),
        "aliyun": ("misconfigured", "InvalidAccessKeyId.NotFound", BACKUP),
        "gateway": ("misconfigured", "401", BACKUP),
        "fcm": ("misconfigured", "UNAUTHENTICATED", BACKUP),
        # An endpoint is its owner's, and one owner's mistake stops nobody else's messages.
        "webpush": ("try_later", "403", "sent"),
        "webhook": ("try_later", "401", "sent"),
        "slack": ("misconfigured", "no_service", BACKUP),
        "teams": ("misconfigured", "401", BACKUP),
        "dingtalk": ("misconfigured", "300001", BACKUP),
        "feishu": ("misconfigured", "19001", BACKUP),
        "wecom": ("misconfigured", "93000", BACKUP),
    },
}


@pytest.fixture(scope="module")
def played(stage: Stage) -> Mapping[str, list[Seen]]:
    """Every fault, one after another, once Google's token is there: without it nothing can be in doubt."""
    ids = _send(stage, "hang", "push", 900)
    _wait("the first push", lambda: all(it.state == "sent" for it in stage.seen(ids)), 30)
    return {fault: play(stage, fault) for fault in FAULTS}


@pytest.mark.parametrize(
    ("fault", "provider"), [(fault, provider) for fault in FAULTS for provider in TABLE[fault]]
)
def test_a_broken_provider(played: Mapping[str, list[Seen]], fault: str, provider: str) -> None:
    outcome, code, ends = TABLE[fault][provider]
    met = [it for it in played[fault] if any(each[:2] == (provider, outcome) for each in it.attempts)]

    # Then every attempt says what it met, in the provider's own code
    assert met
    assert {each[2] for it in met for each in it.attempts if each[:2] == (provider, outcome)} == {code}
    # And its delivery ends as that means: there, or at the provider that takes over
    for it in met:
        assert it.state == ("sent" if ends == BACKUP else ends), it
        if ends == BACKUP:
            assert it.attempts[-1][:2] == (f"backup-{it.channel}", "accepted")
        elif ends in {"failed", "in_doubt"}:
            assert it.attempts[-1][0] == provider, it


def test_nothing_arrived_twice(stage: Stage, played: Mapping[str, list[Seen]]) -> None:
    everything = [it for found in played.values() for it in found]
    arrived = effects_by_delivery([*stage.fleet.sandbox.requests(), *stage.backup.requests()])
    for it in everything:
        outcomes = [outcome for _, outcome, _ in it.attempts]
        assert outcomes.count("accepted") == (it.state == "sent"), it
        if it.channel != "chat":  # a hook repeats no id of ours
            assert arrived[it.id] <= 1, it
            assert arrived[it.id] >= (it.state == "sent"), it
    posts = sum(request.accepted for request in stage.fleet.sandbox.requests() if request.channel == "chat")
    taken = [it for it in everything if it.channel == "chat" and it.state == "sent"]
    assert posts == sum(not it.attempts[-1][0].startswith("backup") for it in taken)


def test_a_dead_address_is_not_written_to_again(stage: Stage, played: Mapping[str, list[Seen]]) -> None:
    dead = sum(it.state == "failed" for it in played["dead"])
    ((left,),) = stage.fleet.rows(
        "SELECT (SELECT count(*) FROM notify.suppression WHERE reason = 'address_invalid')"
        " + (SELECT count(*) FROM notify.webhook_endpoint WHERE disabled_at IS NOT NULL)"
    )
    assert dead
    assert left == dead
