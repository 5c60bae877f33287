"""`notify config`: what each value is and where it stands, what is wrong and what to write, and no secret anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from notify_tasks import settings
from notify_tasks.cli import main
from notify_tasks.configuration.model import ChannelForm, ProviderForm
from notify_tasks.configuration.reference import markdown

ROOT = Path(__file__).parents[2]
CANARY = "hunter2canary"
Notify = Callable[..., tuple[int, str, str]]


@pytest.fixture
def notify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Notify]:
    """Type a command in a folder with the shipped files."""
    for name in ("notify.toml", "notify.dev.toml", "notify.test.toml", "notify.prod.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        settings.reset()
        capsys.readouterr()
        status = main(words)
        written = capsys.readouterr()
        assert CANARY not in written.out + written.err
        return status, written.out, written.err

    yield run
    settings.reset()


def test_show_tells_each_value_and_where_it_is_from(
    notify: Notify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "database").write_text(f"postgresql://ana:{CANARY}@db/notify")
    monkeypatch.setenv("NOTIFY_ENV", "prod")
    monkeypatch.setenv("NOTIFY_BROKER_URL", f"redis://:{CANARY}@redis/0")
    monkeypatch.setenv("NOTIFY_DATABASE_URL_FILE", str(tmp_path / "database"))
    monkeypatch.setenv("NOTIFY_PROVIDERS__SMTP_MAIN__CONNECTIONS", "3")
    monkeypatch.setenv("NOTIFY_PROVIDERS__INBOX__TOKEN", CANARY)
    monkeypatch.setenv("SMTP_URL", f"smtp://ana:{CANARY}@relay.example")
    monkeypatch.setenv("SMTP_SENDER_FILE", "/run/secrets/sender")

    status, out, _ = notify("config", "show")

    assert status == 0
    found = {
        key: (value, source)
        for key, value, source in re.findall(r"^(\S+) {2,}(\S.*?) {2,}(\S+)$", out, re.MULTILINE)
    }
    assert found["broker_url"] == ("redis://:***@redis/0", "NOTIFY_BROKER_URL")
    assert found["database_url"] == ("postgresql://ana:***@db/notify", "NOTIFY_DATABASE_URL_FILE")
    assert found["call_timeout"] == ("2s", "default")
    assert found["providers.smtp-main.url"] == ("env:SMTP_URL (set)", "notify.toml:9")
    assert found["providers.smtp-main.sender"] == (
        "env:SMTP_SENDER (from SMTP_SENDER_FILE)",
        "notify.toml:10",
    )
    assert found["providers.smtp-main.rate"] == ("50/s", "notify.prod.toml:4")
    assert found["providers.smtp-main.connections"] == ("3", "NOTIFY_PROVIDERS__SMTP_MAIN__CONNECTIONS")
    assert found["providers.inbox.token"] == ("***", "NOTIFY_PROVIDERS__INBOX__TOKEN")
    assert found["channels.email.pool[0]"] == ("smtp-main, weight 1", "notify.toml:17")

    status, out, _ = notify("config", "show", "--json")
    rows = {row["key"]: row for row in json.loads(out)}
    assert status == 0
    assert rows["providers.smtp-main.rate"] == {
        "key": "providers.smtp-main.rate", "value": "50/s", "source": "notify.prod.toml", "line": 4,
    }  # fmt: skip
    assert set(found) - {"key"} <= set(rows)


def test_show_of_a_broken_file_shows_the_settings_and_says_what_is_wrong(
    notify: Notify, tmp_path: Path
) -> None:
    (tmp_path / "notify.toml").write_text("[providers")
    status, out, err = notify("config", "show")
    assert status == 1
    assert "config_file" in out
    assert err.startswith("notify: notify.toml:1: no TOML here")


def test_check_of_what_is_in_order(notify: Notify, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", f"smtp://ana:{CANARY}@relay.example")
    monkeypatch.setenv("SMTP_SENDER", "Shop <shop@example.com>")
    monkeypatch.setenv("NOTIFY_ENV", "prod")
    monkeypatch.setenv("NOTIFY_PROVIDERS__SMTP_MAIN__RATE", "10/s")
    assert notify("config", "check") == (
        0,
        "✔ in order: notify.toml, notify.prod.toml, NOTIFY_PROVIDERS__SMTP_MAIN__RATE\n",
        "",
    )


def test_check_without_secrets_names_each_and_may_leave_them_out(
    notify: Notify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_ENV", "dev")
    status, out, err = notify("config", "check")
    assert status == 1
    assert re.fullmatch(r"notify: \d\d problems; a worker would not start, or keep what it has\n", err)
    assert "✖ notify.dev.toml:5: providers.smtp-main.url: the variable SANDBOX_SMTP_URL is not set\n" in out
    assert "  Set SANDBOX_SMTP_URL, or SANDBOX_SMTP_URL_FILE to the path of a file that holds it\n" in out

    assert notify("config", "check", "--files-only")[0] == 0
    assert notify("config", "check", "--channel", "inapp")[0] == 0
    status, out, _ = notify("config", "check", "--channel", "chat", "--channel", "inapp")
    assert (status, out.count("✖")) == (1, 12)
    assert "providers.slack.rooms.warehouse" in out
    assert "SMTP" not in out
    status, _, err = notify("config", "check", "--channel", "caht")
    assert (status, err) == (2, "notify: --channel: there is no channel 'caht'. Did you mean chat?\n")


def test_check_says_everything_that_is_wrong_and_shows_no_secret(
    notify: Notify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notify.toml").write_text(
        f'[providers.a]\nuse = "email.smpt"\nurl = "smtp://ana:{CANARY}@relay.example"\npassword = "{CANARY}"\n'
        'timeout = "10 s3conds"\n[channels.email]\npool = ["b"]\n'
    )
    monkeypatch.setenv("NOTIFY_CONIFG", "x")
    status, out, err = notify("config", "check")
    assert status == 1
    assert [line.partition(": ")[0] for line in out.splitlines() if not line.startswith("  ")] == [
        "◷ NOTIFY_CONIFG",
        *(f"✖ notify.toml:{line}" for line in (2, 3, 4, 5, 7)),
    ]
    assert 'Did you mean use = "email.smtp"?' in out
    assert err.startswith("notify: 5 problems")


def test_check_warns_of_what_may_surprise(notify: Notify, tmp_path: Path) -> None:
    text = (tmp_path / "notify.toml").read_text()
    (tmp_path / "notify.toml").write_text(
        text.replace('pool = ["inbox"]', 'pool = ["inbox"]\n[providers.x]\nuse = "inapp.store"')
    )
    status, out, _ = notify("config", "check", "--channel", "inapp")
    assert status == 0
    assert (
        "◷ notify.toml:21: providers.x: it is in no pool\n  Name it in channels.inapp.pool\n✔ in order" in out
    )


def test_reference_has_every_setting_and_every_key(notify: Notify) -> None:
    status, out, _ = notify("config", "reference")
    assert status == 0
    assert out == markdown() + "\n"
    for name in settings.Settings.__dataclass_fields__:
        assert f"| `{name}` | `NOTIFY_" in out
    for name in (*ProviderForm.model_fields, *ChannelForm.model_fields):
        assert re.search(
            rf"^\| `\w+\.<\w+>\.{name}` \| `NOTIFY_\w+__<\w+>__{name.upper()}` \|", out, re.MULTILINE
        )
    rows = [line for line in out.splitlines() if line]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
