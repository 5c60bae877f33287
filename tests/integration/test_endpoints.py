"""Webhook endpoints: secrets of their own, which change without a gap, and what ends an endpoint."""

from __future__ import annotations

import base64
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    ChannelError,
    Refused,
    Throttled,
    TryLater,
    Uncertain,
)
from channels.loader import load
from notify_tasks import doctor, endpoints, people, settings, suppressions
from notify_tasks.endpoints import Endpoint
from notify_tasks.errors import InvalidCall, NotConfigured
from notify_tasks.notification import Notification
from notify_tasks.retrying import SCHEDULES
from notify_tasks.states import State
from notify_tasks.webhooks import Webhooks
from tests.contract.http_peer import HttpPeer, Reply
from tests.integration.core_shop import Script, Shop, shop
from tests.integration.core_world import World, call, world

DAY = 86400.0
FAR = "https://canary.example/hooks/canary-path"
CONFIGURED = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"


def new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


KEY = new_key()


@pytest.fixture
def it(database: str) -> Iterator[World]:
    settings.configure(database_url=database, secret_key=KEY)
    with world(database, connections=20) as opened:
        yield opened
    endpoints.close()
    settings.reset()


Open = Callable[..., Shop]


@pytest.fixture
def open_shop(it: World, tmp_path: Path) -> Iterator[Open]:
    """A worker that has a key, or another one, or none."""
    opened = []

    def make(key: str | None = KEY) -> Shop:
        context = shop(tmp_path, it.db, channel="webhook", kinds=[Capability.IDEMPOTENT])
        desk = context.__enter__()
        opened.append(context)
        (desk.types / "test.ping" / "webhook.json").write_text('{"n": {{ payload.n }}}')
        policy = desk.types / "test.ping" / "notification.toml"
        policy.write_text(policy.read_text().replace('expires = "1h"\n', ""))  # three days, as types have it
        desk.deliverer._webhooks = Webhooks(it.db, secret_key=key, failing=5 * DAY)
        return desk

    yield make
    for context in opened:
        context.__exit__(None, None, None)


@pytest.fixture
def desk(open_shop: Open) -> Shop:
    return open_shop()


def to(url: str, message_id: str | None = None, **options: Any) -> Notification:
    return call(message_id, **{"to": {"webhook": url}, "channels": ["webhook"]} | options)


def script(desk: Shop) -> Script:
    return desk.scripts["a"]


def later(it: World, *columns: str, days: float) -> None:
    """Put an endpoint's times back: as if so many days had passed."""
    for name in columns:
        it.rows(f"UPDATE notify.webhook_endpoint SET {name} = {name} - make_interval(secs => %s)", days * DAY)


# --- secrets ------------------------------------------------------------------------------------------


def test_a_secret_is_shown_once_and_stored_encrypted(it: World) -> None:
    made = endpoints.register(FAR)

    assert made.secret is not None
    assert len(base64.b64decode(made.secret.removeprefix("whsec_"))) == 32
    assert (made.signed, made.disabled_at, made.failing_since) == (True, None, None)
    assert endpoints.get(FAR) == replace(made, secret=None)
    assert endpoints.get(made.id) == endpoints.get(FAR)
    (row,) = it.rows("SELECT secret FROM notify.webhook_endpoint")
    assert made.secret.encode() not in bytes(row["secret"])
    for shown in (repr(made), repr(settings.get()), repr(script_of_settings())):
        assert made.secret not in shown
        assert KEY not in shown
        assert "canary" not in shown


def script_of_settings() -> list[settings.Described]:
    return settings.describe(settings.get(), {})


def test_two_endpoints_have_two_secrets_and_a_second_register_changes_none(it: World) -> None:
    one, other = endpoints.register(FAR), endpoints.register(FAR + "/2")
    elsewhere = endpoints.register(FAR, tenant="other")
    assert len({one.secret, other.secret, elsewhere.secret}) == 3

    before = it.rows("SELECT digest, tenant, secret FROM notify.webhook_endpoint ORDER BY 1, 2")
    with pytest.raises(InvalidCall, match=r"^url: it is registered already\. .*rotate"):
        endpoints.register(FAR)
    assert it.rows("SELECT digest, tenant, secret FROM notify.webhook_endpoint ORDER BY 1, 2") == before


def test_a_url_is_checked_when_it_is_registered(it: World) -> None:
    wrong: dict[Any, str] = {
        "ftp://canary.example/hooks": "https://example.com",
        "canary": "https://example.com",
        "https://user:canary@shop.example/hooks": "signed instead",
        "https://shop.example/hooks#canary": "begins with #",
        None: "text",
    }
    for url, remedy in wrong.items():
        with pytest.raises(InvalidCall, match=r"^url: ") as refused:
            endpoints.register(url)
        assert remedy in refused.value.remedy
        assert "canary" not in str(refused.value)


def test_without_a_key_it_says_how_to_make_one(it: World) -> None:
    settings.configure(secret_key=None)
    for act in (lambda: endpoints.register(FAR), lambda: endpoints.rotate(FAR), endpoints.reencrypt):
        with pytest.raises(NotConfigured, match=r"^NOTIFY_SECRET_KEY: .*openssl rand -base64 32"):
            act()
    assert it.rows("SELECT 1 AS one FROM notify.webhook_endpoint") == []


def test_what_is_sent_is_signed_with_the_endpoints_own_secret(it: World, desk: Shop) -> None:
    with HttpPeer(Reply(204)) as peer:
        real(desk)
        own = endpoints.register(f"{peer.url}/own").secret
        endpoints.register(f"{peer.url}/own", tenant="other")
        desk.send(to(f"{peer.url}/own"))
        desk.send(to(f"{peer.url}/ordinary"))

        first, second = peer.requests
    assert own is not None
    assert Webhook(own).verify(first.body, dict(first.headers)) == {"n": 1}
    with pytest.raises(WebhookVerificationError):
        Webhook(CONFIGURED).verify(first.body, dict(first.headers))
    assert Webhook(CONFIGURED).verify(second.body, dict(second.headers)) == {"n": 1}


def real(desk: Shop, **options: Any) -> None:
    """Let the provider be `webhook.standard` itself, allowed to send to this machine."""
    here = {"allow_http": True, "allowed_private_cidrs": ["127.0.0.0/8"], "ports": "any"}
    built = load("webhook.standard", "hooks", {"secrets": [CONFIGURED], **here, **options})
    desk.provider("a")._held.built = built


def test_an_own_secret_goes_before_one_derived_from_the_providers(it: World, desk: Shop) -> None:
    with HttpPeer(Reply(204)) as peer:
        real(desk, sign_for="endpoint")
        own = endpoints.register(peer.url + "/own").secret
        desk.send(to(peer.url + "/own"))
        (seen,) = peer.requests
    assert own is not None
    assert Webhook(own).verify(seen.body, dict(seen.headers)) == {"n": 1}


def test_while_it_rotates_both_secrets_sign(it: World, desk: Shop) -> None:
    old = endpoints.register(FAR).secret
    made = endpoints.rotate(FAR, keep=3600)

    desk.send(to(FAR))
    assert script(desk).sent[-1].secrets == (made.secret, old)
    assert made.previous_until is not None
    assert abs(made.previous_until - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)

    later(it, "previous_until", days=0.5)
    desk.send(to(FAR))
    assert script(desk).sent[-1].secrets == (made.secret,)
    found = endpoints.get(FAR)
    assert found is not None
    assert found.previous_until is None


def test_a_secret_that_has_leaked_signs_no_more(it: World, desk: Shop) -> None:
    endpoints.register(FAR)
    made = endpoints.rotate(FAR, keep=0)
    desk.send(to(FAR))
    assert script(desk).sent[-1].secrets == (made.secret,)
    assert it.rows("SELECT previous_secret FROM notify.webhook_endpoint") == [{"previous_secret": None}]


def test_how_long_a_secret_is_kept_is_bounded(it: World) -> None:
    for keep in (-1, 31 * DAY, float("nan"), float("inf")):
        with pytest.raises(InvalidCall, match=r"^keep: "):
            endpoints.rotate(FAR, keep=keep)


def test_only_a_registered_endpoint_rotates(it: World) -> None:
    endpoints.disable(FAR)
    for which in (FAR, "https://nobody.example/"):
        with pytest.raises(InvalidCall, match=r"^endpoint: .*Register it"):
            endpoints.rotate(which)


# --- keys ---------------------------------------------------------------------------------------------


def test_a_key_is_changed_while_the_fleet_runs(it: World, open_shop: Open) -> None:
    new = new_key()
    endpoints.register(FAR)
    rotated = endpoints.rotate(FAR)

    # Workers get the new key in front of the old one, the secrets are written anew, and the old key goes.
    settings.configure(secret_key=f"{new}, {KEY}")
    both = open_shop(f"{new} {KEY}")
    both.send(to(FAR))
    assert endpoints.reencrypt() == 1
    settings.configure(secret_key=new)
    desk = open_shop(new)
    desk.send(to(FAR))

    sent = script(desk).sent[-1].secrets
    assert sent == script(both).sent[-1].secrets
    assert sent[0] == rotated.secret
    assert len(sent) == 2

    settings.configure(secret_key=new_key())
    with pytest.raises(NotConfigured, match=r"NOTIFY_SECRET_KEY: .* not among these"):
        endpoints.reencrypt()


@pytest.mark.parametrize(
    ("key", "reason"), [(None, "secret_key_missing"), (new_key(), "secret_key_wrong")], ids=["none", "wrong"]
)
def test_a_worker_that_cannot_open_the_secret_holds_the_message_and_no_other(
    it: World, open_shop: Open, caplog: pytest.LogCaptureFixture, key: str | None, reason: str
) -> None:
    made = endpoints.register(FAR)
    desk = open_shop(key)

    outcome = desk.send(to(FAR))

    # Nothing goes out unsigned, nothing is lost, no attempt is spent, and the operator is told.
    assert script(desk).sent == []
    assert (outcome.state, outcome.code) == (State.HELD, reason)
    row = it.row(outcome.id)
    assert (row["state"], row["reason"], row["attempts"]) == ("held", reason, 0)
    assert 50 < (row["due_at"] - datetime.now(UTC)).total_seconds() <= 60
    assert [attempt["outcome"] for attempt in it.attempts(outcome.id)] == ["misconfigured"]
    assert "NOTIFY_SECRET_KEY" in caplog.text
    assert "canary" not in caplog.text
    # Endpoints without a secret are not concerned.
    assert desk.send(to("https://ordinary.example/")).state is State.SENT

    # A worker that has the key sends it.
    it.rows("UPDATE notify.delivery SET state = 'queued', due_at = NULL")
    good = open_shop(KEY)
    good.deliver(outcome.id)
    assert it.state(outcome.id) == "sent"
    assert script(good).sent[-1].secrets == (made.secret,)


# --- gone, failing, disabled ----------------------------------------------------------------------------


def test_410_disables_the_endpoint_and_what_comes_after_is_suppressed(
    it: World, desk: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    script(desk).will(AddressInvalid("410", "the endpoint says that it is gone"))
    first = desk.send(to(FAR))
    second = desk.send(to(FAR))
    elsewhere = desk.send(to(FAR, tenant="other"))

    assert (first.state, first.code) == (State.FAILED, "410")
    assert (it.state(second.id), it.row(second.id)["reason"]) == ("suppressed", "endpoint_disabled")
    assert it.events(second.id)[-1] == "suppressed"
    assert elsewhere.state is State.SENT
    assert len(script(desk).sent) == 2
    found = endpoints.get(FAR)
    assert found is not None
    assert found.disabled_reason == "gone"
    assert suppressions.find(channel="webhook").suppressions == ()
    assert re.search(rf"webhook endpoint {found.id} is disabled: it is gone \(410\)", caplog.text)
    assert "canary" not in caplog.text

    # Enabled again, it is sent to again.
    assert endpoints.enable(found.id).disabled_at is None
    assert desk.send(to(FAR)).state is State.SENT


def test_an_endpoint_that_fails_for_days_is_disabled(
    it: World, desk: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: ChannelError) -> Endpoint:
        script(desk).will(error)
        desk.send(to(FAR))
        found = endpoints.get(FAR)
        assert found is not None
        return found

    since = fail(TryLater("500")).failing_since
    assert since is not None
    for error in (Uncertain("timeout"), Refused("302"), TryLater("404")):
        later(it, "failing_since", "failed_at", days=1.2)
        found = fail(error)
        assert found.disabled_at is None
    assert "disabled" not in caplog.text
    later(it, "failing_since", "failed_at", days=1.5)

    found = fail(TryLater("503"))

    assert found.disabled_at is not None
    assert found.disabled_reason == "failing"
    assert caplog.text.count("is disabled: it has failed for 5.0 days, at last with 503") == 1
    assert "canary" not in caplog.text
    sent = len(script(desk).sent)
    assert desk.send(to(FAR)).code == "endpoint_disabled"
    assert len(script(desk).sent) == sent


def test_one_success_forgets_the_failures(it: World, desk: Shop) -> None:
    script(desk).will(TryLater("500"))
    desk.send(to(FAR))
    later(it, "failing_since", days=4)
    desk.send(to(FAR))
    found = endpoints.get(FAR)
    assert found is not None
    assert found.failing_since is None

    later(it, "failing_since", days=4)
    script(desk).will(TryLater("500"))
    desk.send(to(FAR))
    assert endpoints.get(FAR).disabled_at is None  # type: ignore[union-attr]


def test_silence_between_two_failures_is_no_failure(it: World, desk: Shop) -> None:
    script(desk).will(TryLater("500"), TryLater("500"))
    desk.send(to(FAR))
    later(it, "failing_since", "failed_at", days=30)  # nothing was asked of it for a month
    desk.send(to(FAR))

    found = endpoints.get(FAR)
    assert found is not None
    assert found.disabled_at is None
    assert found.failing_since is not None
    assert found.failing_since > datetime.now(UTC) - timedelta(minutes=1)


@pytest.mark.parametrize(
    "error", [Throttled("429"), Refused("too-long"), Refused("blocked")], ids=lambda error: str(error.code)
)
def test_what_is_not_the_endpoints_failure_is_not_counted(it: World, desk: Shop, error: ChannelError) -> None:
    script(desk).will(error)
    desk.send(to(FAR))
    assert endpoints.get(FAR) is None


def test_a_type_that_is_gone_is_not_the_endpoints_failure(it: World, desk: Shop) -> None:
    taken = desk.take(to(FAR))
    assert taken.claimed is not None
    shutil.rmtree(desk.types / "test.ping")
    outcome = desk.deliverer.perform(taken.claimed, asked=taken.asked)
    assert (outcome.state, outcome.code) == (State.RETRYING, "unknown_type")
    assert endpoints.get(FAR) is None


def test_an_ordinary_success_writes_nothing_and_other_channels_ask_nothing(
    it: World, desk: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    rows = it.db.rows

    def counted(statement: str, parameters: Any = ()) -> Any:
        asked.append(statement)
        return rows(statement, parameters)

    monkeypatch.setattr(it.db, "rows", counted)
    desk.send(to(FAR))
    assert len([each for each in asked if "webhook_endpoint" in each]) == 1
    asked.clear()
    with shop(tmp_path, it.db) as other:
        other.deliverer._webhooks = desk.deliverer._webhooks
        other.send(call())
    assert [each for each in asked if "webhook_endpoint" in each] == []
    assert it.rows("SELECT 1 AS one FROM notify.webhook_endpoint") == []


def test_what_goes_to_the_far_end_for_trying_says_nothing_of_the_endpoint(it: World, desk: Shop) -> None:
    endpoints.disable(FAR)
    claimed = desk.take(to(FAR)).claimed
    assert claimed is not None
    script(desk).will(AddressInvalid("410"))
    outcome = desk.deliverer.perform(replace(claimed, sandbox=True), asked=9e9)
    assert outcome.code == "410"
    assert endpoints.get(FAR).disabled_reason == "by_operator"  # type: ignore[union-attr]


# --- retries --------------------------------------------------------------------------------------------


def test_a_failing_webhook_is_tried_by_the_long_schedule_under_one_id(it: World, desk: Shop) -> None:
    waits = []
    with HttpPeer(Reply(500)) as peer:
        real(desk)
        id_ = desk.send(to(f"{peer.url}/hooks", "m-1")).id
        while it.state(id_) == "retrying":
            row = it.row(id_)
            waits.append(round((row["not_before"] - row["updated_at"]).total_seconds()))
            it.shift(id_, not_before=-1, due_at=None)
            desk.deliver(id_)
        requests = list(peer.requests)

    assert waits == [int(seconds) for seconds in SCHEDULES["webhook"]]
    assert it.state(id_) == "failed"
    assert len(requests) == 8
    assert {seen.headers["webhook-id"] for seen in requests} == {str(id_)}


def test_a_webhook_in_doubt_is_sent_again_under_its_id_to_the_end(it: World, desk: Shop) -> None:
    """The provider knows the id for as long as the receiver does: at least once is what it was promised."""
    script(desk).will(*[Uncertain("timeout")] * 7)
    id_ = desk.send(to(FAR)).id
    for _ in range(7):
        assert it.state(id_) == "retrying"
        it.shift(id_, not_before=-1)
        it.rows("UPDATE notify.attempt SET started_at = started_at - interval '10 hours'")
        desk.deliver(id_)

    assert it.state(id_) == "sent"
    assert {message.idempotency_key for message in script(desk).sent} == {str(id_)}


# --- lists ------------------------------------------------------------------------------------------------


def test_endpoints_are_listed_page_by_page(it: World) -> None:
    made = sorted(
        [endpoints.register(f"https://shop.example/{n}") for n in range(7)], key=lambda each: each.id
    )
    endpoints.disable(made[3].id, reason="contract_ended")
    endpoints.register(FAR, tenant="other")

    page = endpoints.find(limit=4)
    assert [each.id for each in page.endpoints] == [each.id for each in made[:4]]
    rest = endpoints.find(limit=4, after=page.next)
    assert [each.id for each in rest.endpoints] == [each.id for each in made[4:]]
    assert rest.next is None
    (disabled,) = endpoints.find(disabled=True).endpoints
    assert (disabled.id, disabled.disabled_reason) == (made[3].id, "contract_ended")


def test_what_is_not_stored_is_said_to_be_so(it: World) -> None:
    assert endpoints.get(FAR) is None
    for act in (lambda: endpoints.enable(FAR), lambda: endpoints.disable("0123456789ab")):
        with pytest.raises(InvalidCall, match=r"^endpoint: nothing is stored of it"):
            act()
    with pytest.raises(InvalidCall, match=r"^reason: "):
        endpoints.disable(FAR, reason="Two words")


def test_erasing_a_person_forgets_how_their_endpoint_failed(it: World, desk: Shop) -> None:
    people.upsert("ann", webhook=FAR)
    script(desk).will(TryLater("500"))
    desk.send(to(FAR))
    assert endpoints.get(FAR) is not None

    people.erase("ann")
    assert endpoints.get(FAR) is None


def test_an_accepted_message_is_worth_no_word(
    it: World, desk: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    script(desk).will(Accepted("m", "204"))
    endpoints.register(FAR)
    desk.send(to(FAR))
    assert "canary" not in caplog.text
    assert "whsec" not in caplog.text


# --- what the doctor says ---------------------------------------------------------------------------------


def test_the_doctor_names_a_missing_key_and_endpoints_that_ended(it: World, desk: Shop) -> None:
    assert list(doctor._endpoints(it.db, settings.get())) == []
    endpoints.register(FAR)
    endpoints.disable("https://by-operator.example/")
    assert list(doctor._endpoints(it.db, settings.get())) == []

    script(desk).will(AddressInvalid("410"))
    desk.send(to(FAR))
    settings.configure(secret_key=None)

    key, ended = doctor._endpoints(it.db, settings.get())
    assert "1 webhook endpoint with a secret of its own, and NOTIFY_SECRET_KEY is not set here" in key.text
    assert "1 webhook endpoint disabled within 7 days" in ended.text
    assert "`notify endpoints list --disabled`" in str(ended.remedy)


def test_a_thousand_messages_that_wait_for_a_key_are_one_line_in_the_log(
    it: World, open_shop: Open, caplog: pytest.LogCaptureFixture
) -> None:
    endpoints.register(FAR)
    desk = open_shop(None)
    for _ in range(5):
        desk.send(to(FAR))
    assert caplog.text.count("NOTIFY_SECRET_KEY is not set here") == 1
