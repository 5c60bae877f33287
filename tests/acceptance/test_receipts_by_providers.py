"""What providers report of a fleet's own messages: its door, its worker, and the sandbox as the providers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.fleet import ROOT, RunningFleet, running_fleet
from support.ports import free_port

from notify_tasks import send_notification
from notify_tasks.routing import MAINT_QUEUE, RECEIPTS_QUEUE, queue_for
from notify_tasks.supervising import Spec, worker_spec

PROGRAM = "import sys; from notify_tasks.cli import main; sys.exit(main())"
NOTIFY = (sys.executable, "-c", PROGRAM)
TOKEN = "x9-Kq3v8d1n5s7w9y2c4f6h"
KEY = "kq3v8d1n5s7w9y2c4f6h"
CONFIG = """
[providers.relay]
use = "email.smtp"
url = "env:SANDBOX_SMTP_URL"
ca_file = "env:SANDBOX_CA_FILE"
connection_messages = 1
sender = "Shop <hello@shop.example>"
bounce_domain = "bounces.shop.example"
bounce_key = "env:BOUNCE_KEY"
[providers.sendgrid]
use = "email.sendgrid"
url = "env:SANDBOX_URL"
ca_file = "env:SANDBOX_CA_FILE"
api_key = "env:SANDBOX_SENDGRID_API_KEY"
sender = "Shop <hello@shop.example>"
webhook_key = "env:SANDBOX_SENDGRID_WEBHOOK_KEY"
[providers.twilio]
use = "sms.twilio"
url = "env:SANDBOX_URL"
ca_file = "env:SANDBOX_CA_FILE"
account_sid = "env:SANDBOX_TWILIO_ACCOUNT_SID"
auth_token = "env:SANDBOX_TWILIO_AUTH_TOKEN"
from = "+15005550006"
status_callback = "http://127.0.0.1:{port}/hooks/twilio"
[providers.aliyun]
use = "sms.aliyun"
url = "env:SANDBOX_URL"
ca_file = "env:SANDBOX_CA_FILE"
access_key_id = "env:SANDBOX_ALIYUN_ACCESS_KEY_ID"
access_key_secret = "env:SANDBOX_ALIYUN_ACCESS_KEY_SECRET"
sign_name = "Sandbox"
callback_token = "env:CALLBACK_TOKEN"
templates = {{ "order.shipped" = {{ code = "SMS_154950909", text = "${{content}}" }} }}
[channels.email]
pool = [{{ provider = "relay", weight = 1 }}, {{ provider = "sendgrid", weight = 0 }}]
[channels.sms]
pool = [{{ provider = "twilio", weight = 1 }}, {{ provider = "aliyun", weight = 0 }}]
"""
FILES = {
    "notification.toml": 'channels = ["email"]\n[payload]\ntype = "object"\n',
    "example.json": "{}\n",
    "email.subject.txt": "Order",
    "email.txt": "It left today.",
    "sms.txt": "It left today.",
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    directory = tmp_path_factory.mktemp("receipts")
    folder = directory / "templates" / "order.shipped"
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    port = free_port()
    config = directory / "reporting.toml"
    config.write_text(CONFIG.format(port=port))
    environment = {
        "NOTIFY_CONFIG": str(config),
        "NOTIFY_TEMPLATES": str(directory / "templates"),
        "BOUNCE_KEY": KEY,
        "CALLBACK_TOKEN": TOKEN,
    }
    queues = [
        *(queue_for(stage, "normal") for stage in ("intake", "email", "sms")),
        MAINT_QUEUE,
        RECEIPTS_QUEUE,
    ]
    worker = worker_spec("worker", queues, threads=4)
    door = Spec("gateway", (*NOTIFY, "gateway", "--port", str(port)))
    with running_fleet(directory, [worker], environment=environment) as running:
        running.supervisor.start(door)
        log = running.supervisor.log_path("gateway")
        running.wait(
            "the door opens", lambda: log.exists() and "ready: http://127.0.0.1:" in log.read_text(), 30
        )
        hooks = f"http://127.0.0.1:{port}/hooks"
        running.sandbox.plan_receipts("smtp", url=f"{hooks}/relay")
        running.sandbox.plan_receipts("sendgrid", url=f"{hooks}/sendgrid")
        running.sandbox.plan_receipts("twilio", url=f"{hooks}/twilio")
        running.sandbox.plan_receipts("aliyun", url=f"{hooks}/aliyun?token={TOKEN}")
        yield running


def send(channel: str, address: str) -> str:
    sent = send_notification.delay("order.shipped", to={channel: address}, channels=[channel], payload={})
    return sent.message_id


def wait_end(fleet: RunningFleet, message_id: str, state: str) -> tuple[object, object]:
    """The provider and its own code in the last receipt, once the delivery is in this state."""
    found: list[tuple[object, ...]] = []

    def there() -> bool:
        found[:] = fleet.rows(
            """SELECT r.provider, r.code FROM notify.delivery d JOIN notify.receipt r ON r.delivery_id = d.id
                WHERE d.message_id = %s AND d.state = %s AND r.state = 'applied' ORDER BY r.id DESC LIMIT 1""",
            message_id,
            state,
        )
        return bool(found)

    fleet.wait(f"{message_id} is {state}", there, 30)
    return found[0][0], found[0][1]


def suppressed(fleet: RunningFleet, address: str) -> list[object]:
    return [row[0] for row in fleet.rows("SELECT reason FROM notify.suppression WHERE address = %s", address)]


def test_each_provider_says_what_became_of_its_messages(fleet: RunningFleet) -> None:
    # Given mail by a relay and SMS by Twilio,
    lost, unwanted = send("email", "latebounce@example.com"), send("email", "complain@example.com")
    read, dead = send("sms", "+15551230000"), send("sms", "+15556051234")

    # when they report, then each delivery is where the report says, and so are the addresses.
    assert wait_end(fleet, lost, "undelivered") == ("relay", "5.1.1")
    assert wait_end(fleet, unwanted, "delivered") == ("relay", "abuse")
    assert wait_end(fleet, read, "delivered") == ("twilio", "delivered")
    assert wait_end(fleet, dead, "undelivered") == ("twilio", "30005")
    assert suppressed(fleet, "latebounce@example.com") == ["address_invalid"]
    assert suppressed(fleet, "complain@example.com") == ["complained"]
    assert suppressed(fleet, "+15556051234") == ["address_invalid"]

    # And when others take over,
    fleet.sandbox.set_mode("smtp", "535")
    fleet.sandbox.set_mode("twilio", "wrong_key")
    fleet.sandbox.plan_receipts("sendgrid", duplicate=True, reordered=True)
    arrived, bounced = send("email", "ann@example.com"), send("email", "bounce@example.com")
    taken, gone = send("sms", "+8613900001234"), send("sms", "+8615556011234")

    # then these report, in their own words, however often and in whatever order.
    assert wait_end(fleet, arrived, "delivered")[0] == "sendgrid"
    assert wait_end(fleet, bounced, "undelivered")[0] == "sendgrid"
    assert wait_end(fleet, taken, "delivered") == ("aliyun", "DELIVERED")
    assert wait_end(fleet, gone, "undelivered") == ("aliyun", "MK:0001")
    assert suppressed(fleet, "bounce@example.com") == ["address_invalid"]
    assert suppressed(fleet, "+8615556011234") == ["address_invalid"]


def test_a_stop_in_a_text_ends_sms_to_that_number_until_a_start(fleet: RunningFleet) -> None:
    number = "+15551230077"

    fleet.sandbox.say("twilio", number, "Stop.")
    fleet.wait("the stop counts", lambda: suppressed(fleet, number) == ["opted_out"], 30)
    fleet.sandbox.say("twilio", number, "START")
    fleet.wait("the start counts", lambda: suppressed(fleet, number) == [], 30)


def test_what_is_forged_changes_nothing(fleet: RunningFleet) -> None:
    before = fleet.rows("SELECT count(*) FROM notify.receipt WHERE address = '+15551230088'")
    fleet.sandbox.plan_receipts("twilio", forged=True)

    fleet.sandbox.say("twilio", "+15551230088", "STOP")
    log = fleet.supervisor.log_path("gateway")
    fleet.wait(
        "the door refuses it", lambda: "receipts refused for twilio (signature): 1" in log.read_text(), 30
    )

    assert (
        fleet.rows("SELECT count(*) FROM notify.receipt WHERE address = '+15551230088'") == before == [(0,)]
    )
    assert suppressed(fleet, "+15551230088") == []


def test_a_bounce_may_come_through_a_pipe_and_nothing_private_is_logged(
    fleet: RunningFleet, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*NOTIFY, "receipts", "take", "relay"],
        cwd=ROOT,
        env=fleet.environment,
        input=b"To: <bounce+0193b1f2-7c1d-7e3a-9f00-5a1b2c3d4e5f.aaaaaaaaaaaaaaaaaaaa@bounces.shop.example>\r\n\r\nx",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 77, done.stderr  # EX_NOPERM: it is forged

    logs = b"".join(path.read_bytes() for path in fleet.directory.rglob("logs/*.log")) + done.stderr
    assert logs
    for private in (b"example.com", b"+1555", b"1390000", TOKEN.encode(), KEY.encode(), b"bounce+"):
        assert private not in logs, private
