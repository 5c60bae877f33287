"""A running process takes a changed configuration whole or not at all, and tells the database which one it has."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from notify_tasks import doctor, reloading
from notify_tasks.configuration.origins import BadConfiguration
from notify_tasks.findings import Health
from notify_tasks.providers import Pools
from notify_tasks.reloading import Reloader, check_start, load
from notify_tasks.settings import Settings
from notify_tasks.store import reports
from notify_tasks.store.database import Database
from notify_tasks.store.reports import Report
from tests.integration.core_world import until

BASE = """\
[providers.a]
use = "sms.sandbox"
url = "http://127.0.0.1:1"
[providers.b]
use = "sms.sandbox"
url = "env:B_URL"
[channels.sms]
pool = ["a", "b"]
"""


class Desk:
    """A process's pools and its reloader, looked after by hand or by its thread."""

    def __init__(self, folder: Path, store: Database, env: str | None = None) -> None:
        self.path = folder / "notify.toml"
        self.settings = Settings(database_url=store.url, config_file=str(self.path), env=env)
        self.pools = Pools(load(self.settings))
        self.told: list[int] = []
        self.reloader = Reloader(
            self.settings,
            self.pools,
            channels=["sms"],
            database=store,
            worker=f"here:{os.getpid()}",
            changed=lambda: self.told.append(1),
        )

    def write(self, text: str, path: Path | None = None) -> None:
        """Replace a file as careful editors do: another inode."""
        target = path or self.path
        new = target.with_suffix(".new")
        new.write_text(text)
        new.replace(target)


@pytest.fixture
def store(database: str) -> Iterator[Database]:
    opened = Database(database, connections=3, wait=1.0)
    yield opened
    opened.close()


@pytest.fixture
def desk(
    tmp_path: Path, store: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Desk]:
    """A desk that has looked once, as every process does first."""
    caplog.set_level(logging.INFO, "notify_tasks.reloading")
    secret = tmp_path / "b-url"
    secret.write_text("http://127.0.0.1:2")
    monkeypatch.setenv("B_URL_FILE", str(secret))
    (tmp_path / "notify.toml").write_text(BASE)
    opened = Desk(tmp_path, store)
    assert opened.reloader.look()
    assert caplog.records == []
    yield opened
    opened.reloader.stop()


def weights(desk: Desk) -> tuple[tuple[str, float], ...]:
    return desk.pools.configuration.pools["sms"].members


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


# --- one look -----------------------------------------------------------------------------------------


def test_a_good_change_is_taken_and_told_in_words(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.write(BASE.replace('"b"]', '{ provider = "b", weight = 9 }]'))
    assert desk.reloader.look()
    assert weights(desk) == (("a", 1.0), ("b", 9.0))
    assert desk.told == [1]
    (line,) = said(caplog, logging.INFO)
    assert line.endswith("is in force: pool of sms a 1, b 1 -> a 1, b 9")
    assert not desk.reloader.look()


def test_a_broken_file_changes_nothing_and_is_logged_once(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.write("[" + BASE)
    assert desk.reloader.look()
    assert not desk.reloader.look()
    assert weights(desk) == (("a", 1.0), ("b", 1.0))
    (line,) = said(caplog, logging.ERROR)
    assert f"{desk.path}:1: " in line
    assert "stays in force" in line
    assert desk.reloader.problem is not None

    # Broken in another way it is logged again; mended, it is in force.
    desk.write(BASE.replace("pool", "pol"))
    assert desk.reloader.look()
    assert "Did you mean pool?" in said(caplog, logging.ERROR)[1]
    assert "\n" not in said(caplog, logging.ERROR)[1]
    desk.write(BASE)
    assert desk.reloader.look()
    assert desk.reloader.problem is None
    assert said(caplog, logging.INFO)[-1].endswith("nothing in it is different")
    assert desk.told == []


def test_a_provider_that_cannot_be_built_refuses_the_whole_change(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.write(BASE.replace('["a", "b"]', '["b", "a"]').replace('url = "http', 'colour = "red"\nurl = "http'))
    assert desk.reloader.look()
    assert weights(desk) == (("a", 1.0), ("b", 1.0))
    assert f"{desk.path}:3: providers.a.colour: is no option of sms.sandbox" in said(caplog, logging.ERROR)[0]


def test_a_file_that_is_being_written_is_read_when_it_is_whole(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor that truncates first leaves an empty or half a file for a moment."""
    monkeypatch.setattr(reloading, "SETTLED_AFTER", 1.0)  # on a busy machine the writer may pause for long
    text = BASE.replace('"b"]', '{ provider = "b", weight = 9 }]')
    begun = threading.Event()

    def slowly() -> None:
        with desk.path.open("w") as file:
            begun.set()
            for at in range(0, len(text), 30):
                time.sleep(0.02)
                file.write(text[at : at + 30])
                file.flush()

    writer = threading.Thread(target=slowly)
    writer.start()
    begun.wait(5)
    desk.reloader.look()
    writer.join()
    desk.reloader.look()
    assert weights(desk) == (("a", 1.0), ("b", 9.0))
    assert said(caplog, logging.ERROR) == []


def test_a_rotated_secret_is_taken_and_a_missing_one_waits_for_its_file(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = desk.pools.get("b")
    assert before is not None
    old = before.provider()
    (tmp_path / "b-url").write_text("http://127.0.0.1:33")
    assert desk.reloader.look()
    after = desk.pools.get("b")
    assert after is not None
    assert after.provider() is not old
    assert said(caplog, logging.INFO)[0].endswith("a secret of b is another one")

    # A file that names a secret before that is there: nothing changes,
    monkeypatch.setenv("C_URL_FILE", str(tmp_path / "c-url"))
    desk.write(BASE.replace("env:B_URL", "env:C_URL"))
    assert desk.reloader.look()
    assert "C_URL_FILE" in said(caplog, logging.ERROR)[0]
    assert not desk.reloader.look()
    # until the secret comes.
    (tmp_path / "c-url").write_text("http://127.0.0.1:4")
    assert desk.reloader.look()
    assert said(caplog, logging.INFO)[1].endswith("url of b changed")
    assert "127.0.0.1" not in caplog.text


def test_the_overlay_and_links_are_watched_too(tmp_path: Path, store: Database) -> None:
    """An orchestrator mounts files as links, and swaps the folder behind them."""
    for n in (1, 2):
        (tmp_path / f"v{n}").mkdir()
        (tmp_path / f"v{n}" / "notify.toml").write_text(
            '[providers.a]\nuse = "sms.sandbox"\nurl = "http://127.0.0.1:1"\n'
        )
        (tmp_path / f"v{n}" / "notify.prod.toml").write_text(
            f'[channels.sms]\npool = [{{ provider = "a", weight = {n} }}]\n'
        )
    (tmp_path / "current").symlink_to(tmp_path / "v1")
    desk = Desk(tmp_path / "current", store, env="prod")
    desk.reloader.look()
    assert weights(desk) == (("a", 1.0),)

    (tmp_path / "next").symlink_to(tmp_path / "v2")
    (tmp_path / "next").replace(tmp_path / "current")
    assert desk.reloader.look()
    assert weights(desk) == (("a", 2.0),)

    (tmp_path / "v2" / "notify.prod.toml").unlink()
    assert desk.reloader.look()
    assert "notify.prod.toml: there is no such file" in str(desk.reloader.problem)
    assert weights(desk) == (("a", 2.0),)


# --- its thread, and what it reports ------------------------------------------------------------------


def reported(store: Database) -> Callable[[], reports.Reported | None]:
    return lambda: next(iter(reports.recent(store, 60)), None)


def test_a_running_process_takes_a_change_within_five_seconds_and_reports_it(
    desk: Desk, store: Database
) -> None:
    desk.reloader.start()
    first = until(reported(store), "it reports")
    assert first is not None
    assert first.version == desk.pools.configuration.version
    assert (first.problem, first.files) == (None, str(desk.path))

    desk.write(BASE.replace('["a", "b"]', '["b", "a"]'))
    until(lambda: weights(desk) == (("b", 1.0), ("a", 1.0)), "the change is taken", 30)
    until(
        lambda: getattr(reported(store)(), "version", "") == load(desk.settings).version, "it is reported", 30
    )

    desk.write("nonsense")
    until(lambda: getattr(reported(store)(), "problem", None), "the problem is reported", 30)
    second = reported(store)()
    assert second is not None
    assert second.since > first.since
    assert second.problem_since is not None
    assert second.version != first.version

    desk.reloader.stop()
    assert reported(store)() is None


def test_a_database_that_is_away_delays_no_change(
    tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Database("postgresql://u:p@127.0.0.1:1/none", connections=1, wait=0.5)
    lonely = Desk(tmp_path, away)
    lonely.reloader.start()
    lonely.write(BASE.replace('["a", "b"]', '["b", "a"]'))
    until(lambda: weights(lonely) == (("b", 1.0), ("a", 1.0)), "the change is taken", 30)
    lonely.reloader.stop()
    away.close()


# --- the start ----------------------------------------------------------------------------------------


def test_a_start_needs_the_secrets_of_the_channels_it_serves(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("B_URL_FILE")
    with pytest.raises(
        BadConfiguration, match=r"notify\.toml:6: providers\.b\.url: the variable B_URL is not set"
    ):
        check_start(desk.settings, ["sms"])
    assert check_start(desk.settings, ["email"]).version == check_start(desk.settings, []).version

    desk.write(BASE.replace('["a", "b"]', '["a", "c"]'))
    with pytest.raises(BadConfiguration, match=r"notify\.toml:8: .*there is no provider named 'c'"):
        check_start(desk.settings, [])


# --- doctor -------------------------------------------------------------------------------------------


def findings(settings: Settings) -> list[tuple[Health, str, str]]:
    return [(it.health, it.text, it.remedy) for it in doctor.examine(settings) if it.about == "config"]


def test_the_doctor_compares_what_workers_use_with_what_the_files_say(desk: Desk, store: Database) -> None:
    version = load(desk.settings).version
    report = Report("web-1:17", version, str(desk.path), age=3600)
    reports.put(store, report)
    reports.put(store, replace(report, worker="web-2:18"))
    ((health, text, _),) = findings(desk.settings)
    assert health is Health.GOOD
    assert text.startswith(f"each of 2 workers (web-1:17, ...) uses configuration {version} since ")

    reports.put(
        store, replace(report, version="0ld", problem="notify.toml:7: pool is wrong. Mend it", problem_age=5)
    )
    bad, _ = sorted(findings(desk.settings), key=lambda it: it[0] is not Health.BAD)
    assert bad[0] is Health.BAD
    assert bad[1].startswith("worker web-1:17 still uses the configuration of ")
    assert bad[2] == "because notify.toml:7: pool is wrong. Mend it"

    reports.put(store, replace(report, version="0ld"))
    assert any(
        health is Health.WARNING and "another configuration" in text
        for health, text, _ in findings(desk.settings)
    )

    # A process that has been silent for long is gone.
    store.rows("UPDATE notify.configuration_report SET seen_at = now() - interval '2 minutes'")
    assert findings(desk.settings) == []
    store.rows("UPDATE notify.configuration_report SET seen_at = now() - interval '2 days'")
    reports.put(store, replace(report, worker="web-3:1"))
    assert len(store.rows("SELECT * FROM notify.configuration_report")) == 1


def test_the_doctor_names_what_is_wrong_in_the_files_now(desk: Desk) -> None:
    desk.write(BASE.replace("pool", "pol"))
    (health, text, remedy), *_ = findings(desk.settings)
    assert health is Health.BAD
    assert f"{desk.path}:7: channels.sms.pool: it is missing" in text
    assert remedy == 'Write pool = ["<a provider>"]'
