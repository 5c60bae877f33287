"""The command line against real servers: what it prints, what it returns, and how it says what is wrong."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from notify_tasks import settings
from notify_tasks.cli import main, parser
from notify_tasks.fleet import Fleet, open_fleet
from notify_tasks.routing import queue_for
from notify_tasks.store import parking, pausing, sweeps
from notify_tasks.store.parking import Parked
from notify_tasks.transport import park

ROOT = Path(__file__).parents[2]
CONFIG = """
[providers.inbox]
use = "inapp.store"
[channels.inapp]
pool = ["inbox"]
"""
PAYLOAD = '{"order_id": 981}'
SECRET_KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMyISE="


@dataclass(frozen=True, slots=True)
class Said:
    """What a command returned and wrote."""

    status: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


Notify = Callable[..., Said]


@pytest.fixture
def notify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Notify]:
    """Type a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")

    def run(*words: str) -> Said:
        settings.reset()
        capsys.readouterr()
        status = main(words)
        written = capsys.readouterr()
        return Said(status, written.out, written.err)

    yield run
    settings.reset()


@pytest.fixture
def servers(broker: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet's environment. Calls are kept in PostgreSQL, from where `worker` takes them."""
    config = tmp_path / "notify.toml"
    config.write_text(CONFIG)
    monkeypatch.setenv("NOTIFY_BROKER_URL", broker)
    monkeypatch.setenv("NOTIFY_DATABASE_URL", database)
    monkeypatch.setenv("NOTIFY_INTAKE", "postgres")
    monkeypatch.setenv("NOTIFY_CONFIG", str(config))
    monkeypatch.setenv("NOTIFY_TEMPLATES", str(ROOT / "templates"))


@pytest.fixture
def worker(servers: None) -> Iterator[Callable[[], Fleet]]:
    """Do what the workers of a fleet would do now: plan, deliver, sweep."""
    settings.reset()
    fleet = open_fleet(
        settings.get(), threads=1, channels=("inapp",), away=lambda _: None, give_up=lambda: None
    )

    def work() -> Fleet:
        fleet.intake.drain()
        found = fleet.database.rows("SELECT id FROM notify.delivery WHERE state = 'queued'")
        for waiting in fleet.deliverer.read([row["id"] for row in found]):
            fleet.deliverer.deliver(waiting)
        fleet.sweeper.sweep()
        return fleet

    yield work
    fleet.close()


# --- help and mistakes --------------------------------------------------------------------------------


def test_help_teaches_with_examples(notify: Notify) -> None:
    top = notify("--help")
    assert top.status == 0
    commands = re.findall(r"^ {4}([a-z-]+) {2,}\S", top.out, re.MULTILINE)
    assert commands == list(parser._IN_ORDER)
    for command in commands:
        said = notify(command, "--help")
        assert said.status == 0
        assert f"usage: notify {command}" in said.out
        assert "examples:" in said.out or "commands:" in said.out
        assert max(len(line) for line in said.out.splitlines()) <= 120


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stauts", "x"], "there is no command 'stauts'. Did you mean `notify status`?"),
        (["zzz"], "there is no command 'zzz'. There are demo, send, simulate, status,"),
        (["send", "order.shipped"], "the following arguments are required: --to. Type `notify send --help`"),
        (["status"], "the following arguments are required: ID. Type `notify status --help`"),
        (
            ["parked", "replay", "x"],
            "argument NUMBER: invalid int value: 'x'. Type `notify parked replay --help`",
        ),
        (["send", "order.shipped", "--to", "a@example.com"], "--to: it looks like an address"),
        (
            ["send", "order.shipped", "--to", "a", "--at", "noon"],
            "--at: it is not a time. Write --at 2030-01-31T09",
        ),
        (["send", "order.shipped", "--to", "a", "--at", "2030-01-31T09:00"], "--at: the time has no zone"),
        (["send", "order.shipped", "--to", "a", "--payload", "{x}"], "--payload: it is not JSON (column 2)"),
        (["send", "order.shipped", "--to", "a", "--payload", "@none"], "the file none cannot be read"),
        (
            ["send", "order.shipped", "--to", "a", "--channel", "pigeon"],
            "channels[0]: there is no such channel",
        ),
        (["send", "Order Shipped", "--to", "a"], "event_type: it is not the name of a type"),
        (["recipients", "add", "zoe", "--sms", "123"], "--sms: it is not a phone number in E.164 form"),
        (["recipients", "add", "zoe", "--email", "x y"], "--email: it is not an e-mail address"),
    ],
)
def test_a_mistake_is_one_line_with_what_to_type(notify: Notify, words: list[str], sentence: str) -> None:
    said = notify(*words)
    assert said.status == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("notify: ")
    assert sentence in said.err


def test_no_error_repeats_an_address(notify: Notify) -> None:
    for words in (["--to", "secret@example.com"], ["--to", "email=secret@@example.com"]):
        assert "secret" not in notify("send", "order.shipped", *words).all


@pytest.mark.parametrize(
    "words", [["status", "x"], ["cancel", "x"], ["replay", "x"], ["parked"], ["migrate"]]
)
def test_without_a_database_it_says_what_to_set(notify: Notify, words: list[str]) -> None:
    said = notify(*words)
    assert said.status == 1
    assert "NOTIFY_DATABASE_URL" in said.err
    assert "type `notify demo` in another terminal" in said.err


def test_without_a_broker_a_send_says_what_to_set(notify: Notify) -> None:
    said = notify("send", "order.shipped", "--to", "ana", "--payload", PAYLOAD)
    assert said.status == 1
    assert "NOTIFY_BROKER_URL=redis://" in said.err


def test_a_database_that_is_away_is_said_in_words(notify: Notify, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_DATABASE_URL", "postgresql://ana:canary@127.0.0.1:1/notify")
    for command in ("status", "cancel"):
        said = notify(command, "x")
        assert said.status == 1
        assert "PostgreSQL at 127.0.0.1:1 cannot be used: nobody listens there" in said.err
        assert "canary" not in said.all


def test_a_wrong_password_is_told_from_a_server_that_is_away(
    notify: Notify, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_DATABASE_URL", re.sub(r":[^:@/]+@", ":wrong@", database))
    assert "refuses the user or the password" in notify("status", "x").err


def test_a_database_without_the_schema_says_what_to_type(
    notify: Notify, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_DATABASE_URL", postgres_url)
    said = notify("status", "x")
    assert said.status == 1
    assert said.err == "notify: the database has no schema that fits: type `notify migrate`\n"


def test_a_broker_that_is_away_fails_within_its_budget(
    notify: Notify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_BROKER_URL", "redis://127.0.0.1:1/0")
    said = notify("send", "order.shipped", "--to", "ana", "--payload", PAYLOAD)
    assert said.status == 1
    assert "Redis at 127.0.0.1:1 cannot be reached" in said.err
    assert re.search(r"type the same again with --id [0-9a-f-]{36}: it is sent once either way", said.err)


# --- a notification's life ----------------------------------------------------------------------------


@pytest.mark.usefixtures("servers")
def test_send_prints_the_id_alone_and_status_tells_the_rest(
    notify: Notify, worker: Callable[[], Fleet]
) -> None:
    sent = notify("send", "order.shipped", "--to", "id=ana", "--channel", "inapp", "--payload", PAYLOAD)
    message_id = sent.out.strip()
    assert sent.status == 0
    assert re.fullmatch(r"[0-9a-f-]{36}", message_id)
    assert f"notify status {message_id}" in sent.err

    before = notify("status", message_id)
    assert before.status == 0
    assert "in the intake table" in before.out

    notify("recipients", "add", "ana", "--email", "ana@example.com", "--locale", "de")
    worker()
    after = notify("status", message_id)
    assert re.search(rf"^{message_id}  order\.shipped ", after.out)
    assert re.search(r"0 ms +✔ accepted +1 delivery: inapp", after.out)
    assert re.search(r"● sent +inapp ana +attempt 1 via inbox: stored", after.out)
    assert "\x1b" not in after.out

    (told,) = json.loads(notify("status", message_id, "--json").out)["notifications"]
    assert told["state"] == "accepted"
    assert told["deliveries"][0]["state"] == "sent"
    assert "T" in told["accepted_at"]


@pytest.mark.usefixtures("servers")
def test_send_takes_its_payload_from_a_file(notify: Notify, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text(PAYLOAD)
    assert notify("send", "order.shipped", "--to", "ana", "--payload", "@order.json").status == 0


@pytest.mark.usefixtures("servers")
def test_send_attaches_files_and_status_tells_their_names_and_sizes_to_machines_alone(
    notify: Notify, worker: Callable[[], Fleet], tmp_path: Path
) -> None:
    (tmp_path / "invoice-981.pdf").write_bytes(b"%PDF-1.7")
    words = ["send", "order.shipped", "--to", "id=ana,email=ana@example.com", "--payload", PAYLOAD]
    said = notify(*words, "--attach", "invoice-981.pdf", "--attach-stored", "terms/2026.pdf")
    assert (said.status, said.err.count("\n")) == (0, 1)
    worker()

    told = notify("status", said.out.strip(), "--json")
    (notification,) = json.loads(told.out)["notifications"]
    assert notification["attachments"] == [
        {"name": "invoice-981.pdf", "type": "application/pdf", "size": 8},
        {"name": "2026.pdf", "type": "application/pdf", "size": None},
    ]
    assert "terms/" not in told.out
    assert "pdf" not in notify("status", said.out.strip()).all


@pytest.mark.parametrize(
    ("size", "sentence"),
    [(None, "--attach: the file x.pdf cannot be read"), (262_145, "write --attach-stored PATH")],
)
def test_a_file_that_cannot_be_attached_is_said_with_what_to_type(
    notify: Notify, tmp_path: Path, size: int | None, sentence: str
) -> None:
    if size is not None:
        (tmp_path / "x.pdf").write_bytes(bytes(size))
    said = notify("send", "order.shipped", "--to", "ana", "--attach", "x.pdf")
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert sentence in said.err


@pytest.mark.usefixtures("servers")
def test_send_waits_for_the_end_if_asked_to(notify: Notify) -> None:
    said = notify("send", "order.shipped", "--to", "ana", "--payload", PAYLOAD, "--wait", "0.3")
    assert said.status == 1
    assert "not ended within 0.3 s; type `notify status" in said.err


@pytest.mark.usefixtures("servers")
def test_an_unknown_id_gets_the_possible_reasons(notify: Notify) -> None:
    said = notify("status", "nobody-knows")
    assert said.status == 1
    assert "no notification has the id nobody-knows" in said.err
    assert "notify doctor" in said.err
    assert "--tenant" in said.err


@pytest.mark.usefixtures("servers")
def test_cancel_before_and_after_a_worker_has_seen_it(notify: Notify, worker: Callable[[], Fleet]) -> None:
    early = notify("send", "order.shipped", "--to", "ana", "--payload", PAYLOAD, "--id", "early")
    assert early.out == "early\n"
    assert "before any worker had seen it" in notify("cancel", "early").out
    worker()
    assert "cancelled" in notify("status", "early").out

    notify("recipients", "add", "ana", "--email", "ana@example.com")
    notify("send", "order.shipped", "--to", "ana", "--channel", "inapp", "--payload", PAYLOAD, "--id", "done")
    worker()
    late = notify("cancel", "done")
    assert late.status == 1
    assert "1 too late" in late.out

    notify(
        *("send", "order.shipped", "--to", "ana", "--channel", "inapp", "--payload", PAYLOAD),
        *("--at", "+1h", "--id", "held"),
    )
    worker()
    assert re.search(r"now +◷ held +inapp ana +until .*\((in 59 min|in 1 h)", notify("status", "held").out)
    assert notify("cancel", "held").out == "1 delivery cancelled\n"

    # What was cancelled can be sent after all.
    assert notify("replay", "held").out == "1 delivery queued again\n"
    worker()
    assert "● sent" in notify("status", "held").out


@pytest.mark.usefixtures("servers")
def test_a_rejected_call_is_replayed_once_its_cause_is_mended(
    notify: Notify, worker: Callable[[], Fleet]
) -> None:
    notify(
        "send", "order.shipped", "--to", "new", "--channel", "inapp", "--payload", PAYLOAD, "--id", "first"
    )
    worker()
    assert "✖ rejected" in notify("status", "first").out
    assert "unknown_recipient" in notify("status", "first").out

    notify("recipients", "add", "new", "--email", "new@example.com")
    assert "planned again" in notify("replay", "first").out
    worker()
    assert "● sent" in notify("status", "first").out

    nothing = notify("replay", "first")
    assert nothing.status == 1
    assert "nothing to replay" in nothing.err
    assert "no such notification" in notify("replay", "nobody-knows").err


# --- parked messages ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("servers")
def test_a_parked_message_is_listed_and_put_back_as_it_was(
    notify: Notify, worker: Callable[[], Fleet], broker: str
) -> None:
    assert notify("parked").out == "nothing is parked\n"
    queue = queue_for("email")
    client: redis.Redis = redis.Redis.from_url(broker)
    park(client, queue, b"not json \xff", "not-json", "JSONDecodeError")
    worker()

    listed = notify("parked")
    assert re.search(r"✖ parked +\d+ ms ago +notify\.email +10 B +not-json +JSONDecodeError", listed.out)
    number = re.search(r"^(\d+) ", listed.out, re.MULTILINE)
    assert number

    assert notify("parked", "replay", number[1]).out == "put back on notify.email\n"
    assert client.lrange(queue, 0, -1) == [b"not json \xff"]
    assert notify("parked").out == "nothing is parked\n"
    assert "◌ put back" in notify("parked", "--all").out
    client.close()


@pytest.mark.usefixtures("servers")
def test_one_that_comes_back_shows_again(notify: Notify, worker: Callable[[], Fleet]) -> None:
    fleet = worker()
    one = Parked(queue_for("email"), "refused_by_database", b'{"task": 1}', at="the-same")
    parking.park(fleet.database, [one])
    number = notify("parked").out.splitlines()[1].split()[0]
    notify("parked", "replay", number)
    parking.park(fleet.database, [one])
    assert "refused_by_database" in notify("parked").out


@pytest.mark.usefixtures("servers")
def test_a_call_from_the_intake_table_goes_back_there(notify: Notify, worker: Callable[[], Fleet]) -> None:
    fleet = worker()
    notify("recipients", "add", "ana", "--email", "ana@example.com")
    notify("send", "order.shipped", "--to", "ana", "--channel", "inapp", "--payload", PAYLOAD, "--id", "kept")
    (row,) = fleet.database.rows("DELETE FROM notify.intake RETURNING envelope")
    parking.park(
        fleet.database, [Parked("intake", "taken_without_end", json.dumps(row["envelope"]).encode())]
    )
    number = notify("parked").out.splitlines()[1].split()[0]

    assert notify("parked", "replay", number).out == "put back on intake\n"
    worker()
    assert "● sent" in notify("status", "kept").out


@pytest.mark.usefixtures("servers")
def test_what_can_still_not_be_read_stays_parked(notify: Notify, worker: Callable[[], Fleet]) -> None:
    fleet = worker()
    newer = json.dumps({"v": 99, "message_id": "x"}).encode()
    parking.park(fleet.database, [Parked("intake", "unreadable", newer)])
    number = notify("parked").out.splitlines()[1].split()[0]
    said = notify("parked", "replay", number)
    assert said.status == 1
    assert "can still not be read: the envelope has version 99" in said.err
    assert "unreadable" in notify("parked").out
    assert notify("parked", "replay", "4711").status == 1


# --- looking after the fleet --------------------------------------------------------------------------


def test_migrate_brings_the_schema_and_says_so(
    notify: Notify, start_postgres: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_DATABASE_URL", start_postgres().url)  # type: ignore[attr-defined]
    first = notify("migrate")
    assert first.status == 0
    assert re.match(r"applying 0001 initial\n", first.out)
    assert re.fullmatch(r"the schema is at version \d+: nothing to do\n", notify("migrate").out)


@pytest.mark.usefixtures("servers")
def test_a_healthy_fleet_is_healthy(
    notify: Notify, worker: Callable[[], Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a fleet that beat drives, and whose mails can carry links,
    sweeps.ticked(worker().database)
    monkeypatch.setenv("NOTIFY_PUBLIC_URL", "https://notify.example.com")
    monkeypatch.setenv("NOTIFY_SECRET_KEY", SECRET_KEY)

    # then nothing is wrong with it.
    said = notify("doctor", "--strict")
    assert said.status == 0, said.out
    assert "✖" not in said.out
    abouts = re.findall(r"^✔ (\w+)", said.out, re.MULTILINE)
    assert {"redis", "postgres", "schema", "sweep", "deliveries", "providers", "templates"} <= set(abouts)
    assert said.err == "all is well\n"


@pytest.mark.usefixtures("servers")
def test_the_doctor_names_each_illness_and_its_remedy(
    notify: Notify, worker: Callable[[], Fleet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a fleet that has not swept for a while, with a queue that nobody consumes, a parked message,
    fleet = worker()
    fleet.database.rows("UPDATE notify.sweep SET last_at = now() - interval '2 hours'")
    fleet.database.rows(
        "INSERT INTO notify.marker (queue, n, sent_at) VALUES ('notify.sms.bulk', 1, now() - interval '5 minutes')"
    )
    parking.park(fleet.database, [Parked("notify.email", "not-json", b"{")])
    # a pause, a schedule that cannot be read,
    pausing.put(fleet.database, "type", "order.shipped", reason="incident 7", by="ann@desk")
    fleet.database.rows(
        "INSERT INTO notify.schedule (tenant, id, envelope, kind, rule, timezone, missed, starts_at, problem)"
        " VALUES ('default', 'weekly', '{}', 'cron', 'x', 'UTC', 'once', now(), 'no such zone; write it anew')"
    )
    # a provider without its secret and a broken type,
    (tmp_path / "notify.toml").write_text(
        '[providers.smtp]\nuse = "email.smtp"\nurl = "env:SMTP_URL"\nsender = "a@example.com"\n'
        '[channels.email]\npool = ["smtp"]\n'
    )
    broken = tmp_path / "templates" / "order.broken"
    broken.mkdir(parents=True)
    (broken / "notification.toml").write_text("channels = 3\n")
    monkeypatch.setenv("NOTIFY_TEMPLATES", str(broken.parent))

    # then each is said, with what to do.
    said = notify("doctor")
    assert said.status == 1
    for illness, remedy in (
        ("the last one was 2 h ago", "celery -A notify_tasks beat"),
        ("notify.sms.bulk: work waits", "celery -A notify_tasks worker -P threads -Q notify.sms.bulk"),
        ("1 message that no worker could process", "notify parked"),
        ("smtp (email.smtp) cannot work", "SMTP_URL"),
        ("problem", "notify templates check"),
        ("weekly: no such zone", "Write it anew; `notify schedules show weekly`"),
    ):
        assert re.search(rf"✖ .*{re.escape(illness)}.*\n.*{re.escape(remedy)}", said.out), (illness, said.out)
    assert said.err == "notify: 6 wrong; each line says what to do\n"
    assert re.search(
        r"◷ pauses +type order.shipped .* by ann@desk \(incident 7\): 0 held\n.*notify resume", said.out
    )
    assert re.search(r"◷ beat .*\n.*celery -A notify_tasks beat", said.out)


def test_the_doctor_sees_servers_that_are_away_or_unfit(
    notify: Notify, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("NOTIFY_DATABASE_URL", postgres_url)
    said = notify("doctor")
    assert said.status == 1
    assert re.search(r"✖ redis +it cannot be reached", said.out)
    assert re.search(r"✖ schema .*\n +Type `notify migrate`", said.out)


def test_the_doctor_warns_of_a_redis_that_forgets_or_evicts(
    notify: Notify, start_redis: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = start_redis().url  # type: ignore[attr-defined]
    client: redis.Redis = redis.Redis.from_url(url)
    client.config_set("appendonly", "no")
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("maxmemory", int(1.2 * client.info()["used_memory"]))
    client.close()
    monkeypatch.setenv("NOTIFY_BROKER_URL", url)
    said = notify("doctor").out
    assert "no append-only file" in said
    assert "appendonly yes" in said
    assert "maxmemory-policy noeviction" in said
    assert re.search(r"◷ redis +\d\d% of its memory is used.*\n.*notify top", said)


# --- templates ----------------------------------------------------------------------------------------


@pytest.fixture
def types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of types with one that is in order."""
    import shutil  # noqa: PLC0415 - only here

    shutil.copytree(ROOT / "templates", tmp_path / "types")
    monkeypatch.setenv("NOTIFY_TEMPLATES", str(tmp_path / "types"))
    return tmp_path / "types"


def test_templates_are_listed_checked_and_shown(notify: Notify, types: Path) -> None:
    listed = notify("templates", "list")
    assert listed.status == 0
    assert re.search(r"order\.shipped +● in order +normal +email, inapp, sms", listed.out)
    assert "✔ 6 types in order" in notify("templates", "check").out
    shown = notify("templates", "preview", "order.shipped", "--channel", "sms", "--locale", "de-AT")
    assert "locale de" in shown.out
    assert "Bestellung 981" in shown.out
    assert "text     Hello Ana Silva," in notify("templates", "preview", "order.shipped", "--text").out
    told = json.loads(notify("templates", "preview", "order.shipped", "--json").out)
    assert told["channels"]["email"]["html"].startswith("<!")

    (types / "order.shipped" / "sms.txt").write_text("{{ payload.nothing }}\n")
    checked = notify("templates", "check")
    assert checked.status == 1
    assert re.search(r"✖ order\.shipped/sms\.txt, line 1: ", checked.out)
    assert notify("templates", "check", "order.shiped").out.endswith("Did you mean order.shipped?\n")
    unknown = notify("templates", "preview", "order.shiped")
    assert unknown.status == 2
    assert "Did you mean order.shipped?" in unknown.err


def test_a_type_is_made_and_what_cannot_be_made_is_refused(notify: Notify, types: Path) -> None:
    made = notify("templates", "new", "order.cancelled", "--channels", "email,sms", "--locale", "de")
    assert (made.status, made.err) == (0, "")
    assert "has 10 files" in made.out
    assert (
        f"notify send order.cancelled --to user-42 --payload @{types}/order.cancelled/example.json"
        in made.out
    )
    assert "✔ 1 type in order" in notify("templates", "check", "order.cancelled").out

    for words, said in (
        (["order.cancelled"], "exists already. Edit its files, or choose another name"),
        (["Order Returned"], "Write order.returned"),
        (["order.returned", "--channels", "emial"], "Did you mean 'email'?"),
        (["order.returned", "--locale", "german"], "Write a language tag: de, zh-Hans, pt-BR"),
    ):
        refused = notify("templates", "new", *words)
        assert refused.status == 2
        assert said in refused.err
    assert not (types / "order.returned").exists()


# --- as a program -------------------------------------------------------------------------------------


def test_help_loads_nothing_heavy() -> None:
    """Importing is what makes a command line slow: `--help` must do without all of these."""
    code = (
        "import sys; from notify_tasks.cli import main; main(['--help'])\n"
        "heavy = {'celery', 'kombu', 'redis', 'psycopg', 'rich', 'jinja2', 'channels', 'requests'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("servers")
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    program = f"{sys.executable} -c 'import sys; from notify_tasks.cli import main; sys.exit(main())'"
    done = subprocess.run(
        [
            "sh",
            "-c",
            f"{program} templates preview order.shipped --json | head -c 1; {program} send --help | true",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == "{"


def test_providers_are_listed_as_their_files_say(notify: Notify) -> None:
    listed = notify("providers")
    assert listed.status == 0
    assert re.search(r"^email\.smtp +opaque +yes +mail through an SMTP relay", listed.out, re.MULTILINE)
    assert re.search(r"^webhook\.standard +idempotent ", listed.out, re.MULTILINE)
    assert notify("providers", "--markdown").out.startswith("| `use` |")


@pytest.mark.timeout(60)
def test_the_sandbox_runs_until_it_is_ended(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from notify_tasks.cli import main; sys.exit(main())", "sandbox"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            said = "".join(iter(process.stdout.readline, "\n"))
            port = re.search(r"SANDBOX_SMTP_URL=smtp://sandbox:\S+@127\.0\.0\.1:(\d+)", said)
            assert port, said
            with socket.create_connection(("127.0.0.1", int(port[1])), timeout=5) as connection:
                assert connection.recv(100).startswith(b"220 ")
            assert re.search(r"^# sms\.twilio\nSANDBOX_TWILIO_ACCOUNT_SID=AC\w{32}$", said, re.MULTILINE)
            kept = f". {tmp_path}/.notify/sandbox/sandbox.env; echo $SANDBOX_TEAMS_HOOK $SANDBOX_URL"
            shown = subprocess.run(["sh", "-c", kept], capture_output=True, text=True, check=True).stdout
            assert re.fullmatch(
                r"https://127\.0\.0\.1:\d+/workflows/\S+&sig=\S+ https://127\.0\.0\.1:\d+\n", shown
            )
            process.terminate()
            assert process.stdout.read().endswith("stopped\n")
        assert process.wait(15) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
