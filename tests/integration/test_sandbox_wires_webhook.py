"""The sandbox as a customer who receives webhooks: what is signed well is taken once, and nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from integration.wire_clients import LOCAL, Answer, ask, row, send, shown
from standardwebhooks import Webhook

from channels.contract import (
    Accepted,
    AddressInvalid,
    ChannelError,
    DataContent,
    Provider,
    Throttled,
    TryLater,
)
from channels.loader import load
from notify_tasks.sandbox import Sandbox, effects_by_delivery, sandbox_process
from tests.support.wired import last, outcome

EVENT = {"type": "order.shipped", "data": {"order_id": 981}}
OWN_SECRET = "whsec_" + base64.b64encode(b"the customer's own secret, of 32").decode()


@pytest.fixture(scope="module")
def far_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_process(tmp_path_factory.mktemp("sandbox"), page=True, page_port=0) as running:
        yield running


@pytest.fixture
def sandbox(far_end: Sandbox) -> Sandbox:
    far_end.clear_modes()
    return far_end


@pytest.fixture(scope="module")
def customers(far_end: Sandbox) -> Iterator[Provider]:
    secret = far_end.ready.environment["SANDBOX_WEBHOOK_SECRET"]
    found = load("webhook.standard", "customers", {"secrets": [secret], **LOCAL})
    yield found
    found.close()


@pytest.fixture
def acme(sandbox: Sandbox) -> str:
    """A customer's endpoint."""
    return f"{sandbox.http_url}/webhooks/acme/orders"


@pytest.fixture
def secret(sandbox: Sandbox) -> str:
    return sandbox.ready.environment["SANDBOX_WEBHOOK_SECRET"]


def post(
    url: str, secret: str, *, event: str = "msg_1", at: datetime | None = None, body: str = "{}"
) -> Answer:
    """An event, signed by the specification's own library."""
    return ask(url, "POST", body, signed(secret, event, at or datetime.now(UTC), body))


def signed(secret: str, event: str, at: datetime, body: str) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "webhook-id": event,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(event, at, body),
    }


def test_an_event_is_taken_and_shown_with_its_signature(
    sandbox: Sandbox, customers: Provider, acme: str
) -> None:
    message, outcome = send(customers, "webhook", acme, DataContent(EVENT))

    taken = last(sandbox)
    assert outcome == Accepted(message.idempotency_key, "200")
    assert (taken.protocol, taken.kind, taken.accepted, taken.to) == ("webhook", "idempotent", True, acme)
    assert taken.idempotency_key == message.idempotency_key
    page = shown(sandbox, taken.id)
    assert "order.shipped" in page
    assert message.idempotency_key in page
    assert "v1," in page
    assert '<span class="badge">Signed</span>' in row(sandbox, taken.id)


def test_a_repeated_event_has_no_second_effect(sandbox: Sandbox, customers: Provider, acme: str) -> None:
    message, first = send(customers, "webhook", acme, DataContent(EVENT))

    second = outcome(customers, message)

    assert second == first
    assert (last(sandbox).accepted, last(sandbox).duplicate_of_key, last(sandbox).code) == (
        False,
        True,
        "200",
    )
    assert effects_by_delivery(sandbox.requests())[message.idempotency_key] == 1


@pytest.mark.parametrize(
    ("mode", "error", "wait"),
    [
        ("wrong_key", TryLater, None),
        ("dead_address", AddressInvalid, None),
        ("429", Throttled, 7),
        ("500", TryLater, None),
        ("503", Throttled, 7),
    ],
)
def test_a_customer_says_no(
    sandbox: Sandbox, customers: Provider, acme: str, mode: str, error: type[ChannelError], wait: float | None
) -> None:
    sandbox.set_mode("webhook", mode, **({} if wait is None else {"retry_after": wait}))

    _, outcome = send(customers, "webhook", acme, DataContent(EVENT))

    assert isinstance(outcome, error)
    assert outcome.retry_after == wait
    assert not last(sandbox).accepted


def test_customers_misbehave_by_their_names(sandbox: Sandbox, customers: Provider) -> None:
    gone, lost = (f"{sandbox.http_url}/webhooks/acme/{name}" for name in ("bounce-1", "lost-1"))

    assert isinstance(send(customers, "webhook", gone, DataContent(EVENT))[1], AddressInvalid)
    message, outcome = send(customers, "webhook", lost, DataContent(EVENT))
    assert isinstance(outcome, ChannelError)
    assert outcome.code == "connection-lost"
    assert effects_by_delivery(sandbox.requests())[message.idempotency_key] == 1


def test_the_official_library_signs_what_is_taken(sandbox: Sandbox, acme: str, secret: str) -> None:
    assert post(acme, secret, event="msg_ok", body=json.dumps(EVENT)).status == 200
    assert last(sandbox).idempotency_key == "msg_ok"


@pytest.mark.parametrize("minutes", [-6, 6])
def test_an_event_of_another_time_is_refused(sandbox: Sandbox, acme: str, secret: str, minutes: int) -> None:
    then = datetime.now(UTC) + timedelta(minutes=minutes)

    assert post(acme, secret, at=then).status == 401
    assert (
        post(acme, secret, event=f"msg_near_{minutes}", at=then - timedelta(minutes=minutes / 2)).status
        == 200
    )


def test_what_is_not_signed_well_is_refused(sandbox: Sandbox, acme: str, secret: str) -> None:
    good = signed(secret, "msg_2", datetime.now(UTC), "{}")

    assert post(acme, OWN_SECRET).status == 401
    assert ask(acme, "POST", "{ }", good).status == 401
    assert ask(acme, "POST", "{}", {**good, "webhook-id": "msg_3"}).status == 401
    assert ask(acme, "POST", "{}", {**good, "webhook-timestamp": "soon"}).status == 401
    assert ask(acme, "POST", "{}", {**good, "webhook-signature": "v1a,x"}).status == 401
    for header in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        assert ask(acme, "POST", "{}", {k: v for k, v in good.items() if k != header}).status == 401
    assert last(sandbox).action == "invalid"
    assert ask(acme, "GET").status == 405


def test_an_endpoint_may_have_secrets_of_its_own(sandbox: Sandbox, secret: str) -> None:
    endpoint = f"{sandbox.http_url}/webhooks/own"
    now = datetime.now(UTC)

    assert ask(endpoint, "PUT", json.dumps({"secrets": [OWN_SECRET]})).status == 204
    assert post(endpoint, secret, event="msg_4").status == 401
    assert post(endpoint, OWN_SECRET, event="msg_5").status == 200

    both = signed(OWN_SECRET, "msg_6", now, "{}")
    both["webhook-signature"] = f"{Webhook(secret).sign('msg_6', now, '{}')} {both['webhook-signature']}"
    assert ask(endpoint, "POST", "{}", both).status == 200, "one of two signatures is enough"

    assert ask(endpoint, "PUT", json.dumps({"secrets": ["short"]})).status == 400
    assert ask(endpoint, "DELETE").status == 204
    assert post(endpoint, secret, event="msg_7").status == 200
