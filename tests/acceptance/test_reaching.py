"""Dead tokens and webhook secrets through a running fleet: its worker, the sandbox's FCM, and customers' endpoints."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator

import pytest
from faults.fleet import RunningFleet, running_fleet
from standardwebhooks import Webhook, WebhookVerificationError

from notify_tasks import NotificationResult, devices, endpoints, people, send_notification, settings
from notify_tasks.sandbox.process import Sandbox, sandbox_process
from notify_tasks.store import statuses
from notify_tasks.store.database import Database
from notify_tasks.supervising import worker_spec
from tests.contract.http_peer import HttpPeer, Reply, Seen

KEY = base64.urlsafe_b64encode(os.urandom(32)).decode()
CONFIG = """
[providers.fcm]
use = "push.fcm"
credentials = "env:SANDBOX_FCM_CREDENTIALS"
url = "env:FCM_URL"
ca_file = "env:SANDBOX_CA_FILE"
timeout = 15
[channels.push]
pool = ["fcm"]
[providers.hooks]
use = "webhook.standard"
secrets = "env:SANDBOX_WEBHOOK_SECRET"
ca_file = "env:SANDBOX_CA_FILE"
allow_http = true
allowed_private_cidrs = ["127.0.0.0/8"]
ports = "any"
[channels.webhook]
pool = ["hooks"]
"""


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_process(tmp_path_factory.mktemp("far")) as running:
        yield running


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, far: Sandbox) -> Iterator[RunningFleet]:
    directory = tmp_path_factory.mktemp("reaching")
    type_ = directory / "templates" / "order.shipped"
    type_.mkdir(parents=True)
    (type_ / "notification.toml").write_text('channels = ["push"]\n[payload]\ntype = "object"\n')
    (type_ / "example.json").write_text('{"n": 1}\n')
    (type_ / "push.json").write_text('{"title": "Order", "body": "Shipped"}\n')
    (type_ / "webhook.json").write_text('{"n": {{ payload.n }}}\n')
    config = directory / "reaching.toml"
    config.write_text(CONFIG)
    environment = {
        **far.environment,
        "FCM_URL": far.https_url,
        "NOTIFY_CONFIG": str(config),
        "NOTIFY_SECRET_KEY": KEY,
        "NOTIFY_TEMPLATES": str(directory / "templates"),
    }
    queues = ["notify.intake", "notify.push", "notify.webhook"]
    with running_fleet(
        directory, [worker_spec("worker", queues, threads=4)], environment=environment
    ) as running:
        settings.configure(secret_key=KEY)
        yield running
        people.close()


@pytest.fixture(scope="module")
def store(fleet: RunningFleet) -> Iterator[Database]:
    database = Database(fleet.postgres.url, connections=2)
    yield database
    database.close()


def ended(fleet: RunningFleet, store: Database, result: NotificationResult) -> list[statuses.DeliveryStatus]:
    """The deliveries of a call, once all have ended."""

    def done() -> bool:
        found = statuses.read(store, result.message_id).notifications
        return bool(found) and all(
            it.state in {"sent", "failed", "suppressed"} for it in found[-1].deliveries
        )

    fleet.wait("the call ends", done, 30)
    return statuses.read(store, result.message_id).notifications[-1].deliveries


def webhook(url: str, n: int) -> NotificationResult:
    return send_notification.delay(
        "order.shipped", to={"webhook": url}, channels=["webhook"], payload={"n": n}
    )


def takes(secret: str | None, seen: Seen) -> bool:
    """Whether a receiver that knows this secret takes the request, by the official library."""
    assert secret is not None
    try:
        Webhook(secret).verify(seen.body, dict(seen.headers))
    except WebhookVerificationError:
        return False
    return True


def test_a_token_that_fcm_calls_dead_is_a_device_no_more(fleet: RunningFleet, store: Database) -> None:
    # Given a person with a phone, and a tablet whose app was removed,
    devices.register("ann", "phone-token", platform="android")
    devices.register("ann", "bounce-token", platform="android", label="the old tablet")

    # when something is sent to both,
    first = ended(fleet, store, send_notification.delay("order.shipped", to="ann", payload={"n": 1}))

    # then the phone gets it, and the tablet is forgotten in the commit that says so.
    assert sorted((it.state, it.attempts[0].code) for it in first) == [
        ("failed", "UNREGISTERED"),
        ("sent", "200"),
    ]
    assert [device.address for device in devices.find("ann")] == ["phone-token"]
    # The next one goes to the phone alone; and nothing goes to the token where a call brings it along.
    second = ended(fleet, store, send_notification.delay("order.shipped", to="ann", payload={"n": 2}))
    assert [it.state for it in second] == ["sent"]
    bare = {"push": "bounce-token"}
    assert [
        it.state
        for it in ended(fleet, store, send_notification.delay("order.shipped", to=bare, payload={"n": 3}))
    ] == ["suppressed"]
    # Installed again, the app registers, and is sent to again.
    devices.register("ann", "bounce-token")
    third = ended(fleet, store, send_notification.delay("order.shipped", to="ann", payload={"n": 4}))
    assert sorted(it.state for it in third) == ["failed", "sent"]


def test_an_endpoints_secret_rotates_without_a_gap(
    fleet: RunningFleet, store: Database, far: Sandbox
) -> None:
    provider = far.environment["SANDBOX_WEBHOOK_SECRET"]
    with HttpPeer(Reply(204)) as customer:
        url = f"{customer.url}/hooks"

        # Before it is registered, the provider's secret signs;
        ended(fleet, store, webhook(url, 1))
        # once it is, its own does;
        old = endpoints.register(url).secret
        ended(fleet, store, webhook(url, 2))
        # while it changes, both do;
        new = endpoints.rotate(url).secret
        ended(fleet, store, webhook(url, 3))
        # and then the new one alone. The worker was never restarted.
        fleet.rows(
            "UPDATE notify.webhook_endpoint SET previous_until = now() WHERE secret IS NOT NULL RETURNING 1"
        )
        ended(fleet, store, webhook(url, 4))
        seen = list(customer.requests)

    signers = [[takes(secret, request) for secret in (provider, old, new)] for request in seen]
    assert signers == [
        [True, False, False],
        [False, True, False],
        [False, True, True],
        [False, False, True],
    ]
    logs = b"".join(path.read_bytes() for path in fleet.directory.rglob("*.log"))
    for secret in (old, new, KEY):
        assert secret is not None
        assert secret.encode() not in logs


def test_a_repeated_request_has_its_first_ones_id_and_410_is_the_end(
    fleet: RunningFleet, store: Database, far: Sandbox
) -> None:
    gone = f"{far.https_url}/webhooks/bounce"
    with HttpPeer(Reply(500), Reply(204)) as customer:
        flaky = webhook(f"{customer.url}/hooks", 1)  # tried again after five seconds
        first = ended(fleet, store, webhook(gone, 1))
        second = ended(fleet, store, webhook(gone, 2))
        (delivery,) = ended(fleet, store, flaky)
        seen = list(customer.requests)

    assert [(it.state, it.attempts[0].code) for it in first] == [("failed", "410")]
    assert [(it.state, it.reason) for it in second] == [("suppressed", "endpoint_disabled")]
    (disabled,) = endpoints.find(disabled=True).endpoints
    assert (disabled.url, disabled.disabled_reason) == (gone, "gone")

    assert delivery.state == "sent"
    assert [attempt.code for attempt in delivery.attempts] == ["500", "204"]
    assert [request.headers["webhook-id"] for request in seen] == [str(delivery.id)] * 2
    assert len({request.headers["webhook-timestamp"] for request in seen}) == 2
    assert endpoints.get(f"{customer.url}/hooks").failing_since is None  # type: ignore[union-attr]
