"""Steps as their user has them: a running fleet sends as far as it must, and `notify status` says what waits."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.fleet import CONFIG, RunningFleet, beat, running_fleet, workers

from notify_tasks import inbox, people, send_notification, settings
from notify_tasks.cli import main

INBOX = """
[providers.inbox]
use = "inapp.store"
[channels.inapp]
pool = ["inbox"]
"""
POLICY = """
[[steps]]
channels = [{first}]
[[steps]]
channel = "sms"
after = "{after}"
unless = ["read"]
"""


def write_type(root: Path, name: str, first: str, after: str) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "notification.toml").write_text(POLICY.format(first=first, after=after))
    for part in ("push.json", "inapp.json"):
        (folder / part).write_text('{"title": "Ping"}')
    (folder / "sms.txt").write_text("Ping")


def state(fleet: RunningFleet, message_id: str, channel: str) -> object:
    found = fleet.rows(
        "SELECT state FROM notify.delivery WHERE message_id = %s AND channel = %s", message_id, channel
    )
    return found[0][0] if found else None


def sms(fleet: RunningFleet) -> int:
    return sum(it.accepted for it in fleet.sandbox.requests() if it.channel == "sms")


def test_a_fleet_sends_as_far_as_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a fleet, a person with every address, and types whose SMS waits for a second, or for ten minutes,
    root = tmp_path / "templates"
    write_type(root, "steps.quick", '"push"', "1s")
    write_type(root, "steps.patient", '"push"', "10m")
    write_type(root, "steps.shown", '"push", "inapp"', "10m")
    config = tmp_path / "steps.toml"
    config.write_text(CONFIG + INBOX)
    given = {"NOTIFY_TEMPLATES": str(root), "NOTIFY_CONFIG": str(config)}
    specs = [*workers(count=1, channels=["sms", "push", "inapp"]), beat()]
    with running_fleet(tmp_path, specs, environment=given) as fleet:
        monkeypatch.setenv("NOTIFY_DATABASE_URL", fleet.postgres.url)
        monkeypatch.setenv("NOTIFY_BROKER_URL", fleet.redis.url)
        people.upsert("ann", sms="+4915112345678")
        people.upsert("bob", sms="+4915112345679")
        fleet.rows(
            "INSERT INTO notify.contact_point (tenant, recipient_id, channel, address)"
            " VALUES ('default', 'ann', 'push', 'token-1') RETURNING 1"
        )
        try:
            # when it is sent, the SMS follows after its second,
            quick = send_notification.delay("steps.quick", to="ann").message_id
            fleet.wait("the SMS after a push", lambda: state(fleet, quick, "sms") == "sent", 40)
            ((waited,),) = fleet.rows(
                "SELECT extract(epoch FROM s.started_at - p.ended_at)::float8 FROM notify.attempt s"
                " JOIN notify.delivery sd ON sd.id = s.delivery_id AND sd.channel = 'sms', notify.attempt p"
                " JOIN notify.delivery pd ON pd.id = p.delivery_id AND pd.channel = 'push'"
            )
            assert isinstance(waited, float)
            assert waited >= 1.0

            # when there is nothing to send the first step to, the second goes at once,
            none = send_notification.delay("steps.patient", to="bob").message_id
            fleet.wait("the SMS to who has no device", lambda: state(fleet, none, "sms") == "sent", 40)

            # when the push is refused, the SMS goes at once as well,
            fleet.sandbox.set_mode("push", "400")
            refused = send_notification.delay("steps.patient", to="ann").message_id
            fleet.wait("the SMS after a refusal", lambda: state(fleet, refused, "sms") == "sent", 40)
            assert state(fleet, refused, "push") == "failed"
            fleet.sandbox.clear_modes("push")
            assert sms(fleet) == 3

            # and while one waits, the command line says for what.
            shown = send_notification.delay("steps.shown", to="ann").message_id
            fleet.wait("the message in the inbox", lambda: state(fleet, shown, "inapp") == "sent", 40)
            capsys.readouterr()
            settings.reset()
            main(["status", shown])
            told = capsys.readouterr().out
            assert "sms waits: 10 min after push or inapp was sent, or at once if none could be" in told
            assert "unless read" in told.replace("\n", " ")

            # When ann reads it, and ten minutes have passed, there is nothing to send any more.
            settings.reset()
            assert inbox.mark_read("ann", None) == 1
            fleet.wait(
                "its turn",
                lambda: bool(
                    fleet.rows(
                        "UPDATE notify.delivery SET step_at = now() WHERE message_id = %s AND step_at IS NOT NULL"
                        " RETURNING 1",
                        shown,
                    )
                ),
                20,
            )
            fleet.wait("the end of it", lambda: state(fleet, shown, "sms") == "superseded", 40)
            assert sms(fleet) == 3
        finally:
            inbox.close()
            people.close()
            settings.reset()
