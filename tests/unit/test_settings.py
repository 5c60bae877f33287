"""Settings come from the environment or the program, and a wrong one says what to write."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from notify_tasks import settings
from notify_tasks.errors import NotConfigured
from notify_tasks.settings import NEW_KEY, Settings, configure, get, read, without_secrets

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    settings.reset()
    yield
    settings.reset()


def test_without_any_setting_the_defaults_hold() -> None:
    assert read({}) == Settings()


def test_every_setting_has_a_variable() -> None:
    found = read(
        {
            "NOTIFY_BROKER_URL": "redis://localhost/1",
            "NOTIFY_DATABASE_URL": "postgresql://localhost/notify",
            "NOTIFY_INTAKE": "postgres",
            "NOTIFY_CALL_TIMEOUT": "0.5",
            "NOTIFY_TEMPLATES": "/srv/templates",
            "NOTIFY_CONFIG": "/srv/notify.toml",
            "NOTIFY_UNKNOWN_TYPE_WAIT": "60",
            "NOTIFY_INTAKE_NOTIFY": "off",
            "NOTIFY_ENV": "prod",
            "NOTIFY_SECRET_KEY": f"{KEY},{KEY}",
            "NOTIFY_PUBLIC_URL": "https://notify.example.com/",
            "NOTIFY_ENDPOINT_FAILING": "2d",
            "NOTIFY_LOG_FORMAT": "json",
            "NOTIFY_TRACING": "off",
            "NOTIFY_HEALTH_PORT": "8086",
            "NOTIFY_HEALTH_HOST": "127.0.0.1",
        }
    )

    assert found == Settings(
        broker_url="redis://localhost/1",
        database_url="postgresql://localhost/notify",
        intake="postgres",
        call_timeout=0.5,
        templates="/srv/templates",
        config_file="/srv/notify.toml",
        unknown_type_wait=60.0,
        intake_notify=False,
        env="prod",
        secret_key=f"{KEY} {KEY}",
        public_url="https://notify.example.com",
        endpoint_failing=172_800.0,
        log_format="json",
        tracing=False,
        health_port=8086,
        health_host="127.0.0.1",
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("0.5", 0.5), ("15m", 900), ("500ms", 0.5), ("1 hour", 3600), ("2d", 172_800)],
)
def test_a_span_of_time_may_have_its_unit(text: str, seconds: float) -> None:
    assert read({"NOTIFY_UNKNOWN_TYPE_WAIT": text}).unknown_type_wait == seconds


def test_every_setting_says_what_it_means_and_where_its_value_is_from(tmp_path: Path) -> None:
    secret = tmp_path / "database"
    secret.write_text("postgresql://ana:s3cret@db/notify")
    environment = {"NOTIFY_DATABASE_URL_FILE": str(secret), "NOTIFY_CALL_TIMEOUT": "500ms"}
    current = replace(read(environment), intake="postgres")

    found = {it.name: it for it in settings.describe(current, environment)}

    assert list(found) == [each.name for each in fields(Settings)]
    assert all(it.meaning for it in found.values())
    assert found["database_url"].value == "postgresql://ana:***@db/notify"
    assert found["database_url"].source == "NOTIFY_DATABASE_URL_FILE"
    assert (found["call_timeout"].value, found["call_timeout"].source) == ("500ms", "NOTIFY_CALL_TIMEOUT")
    assert found["intake"].source == "the program"
    assert (found["templates"].value, found["templates"].source) == ("templates", "default")


def test_a_misspelt_variable_is_noticed_and_a_foreign_one_is_not() -> None:
    environment = {"NOTIFY_BROKER_ULR": "x", "NOTIFY_PARENT": "1", "NOTIFY_ENV": "dev", "NOTIFY_X__Y": "z"}
    assert settings.misspelt(environment) == [("NOTIFY_BROKER_ULR", "NOTIFY_BROKER_URL")]


def test_an_empty_variable_counts_as_unset() -> None:
    assert read({"NOTIFY_BROKER_URL": "", "NOTIFY_ENV": ""}) == Settings()


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "broker"
    secret.write_text("redis://:s3cret@localhost/0\n", encoding="utf-8")

    assert read({"NOTIFY_BROKER_URL_FILE": str(secret)}).broker_url == "redis://:s3cret@localhost/0"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match=r"NOTIFY_BROKER_URL_FILE.*cannot be read.*Name a text file"):
        read({"NOTIFY_BROKER_URL_FILE": str(tmp_path / "none")})


def test_a_variable_and_its_file_contradict_each_other() -> None:
    with pytest.raises(NotConfigured, match="Keep one"):
        read({"NOTIFY_BROKER_URL": "redis://a", "NOTIFY_BROKER_URL_FILE": "/run/secrets/a"})


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("NOTIFY_BROKER_URL", "amqp://s3cret@localhost", "redis://"),
        ("NOTIFY_BROKER_URL", "s3cret", "redis://"),
        ("NOTIFY_INTAKE", "kafka", "redis or postgres"),
        ("NOTIFY_CALL_TIMEOUT", "fast", '"15m"'),
        ("NOTIFY_CALL_TIMEOUT", "3 parsecs", "ms, s, m, h or d"),
        ("NOTIFY_CALL_TIMEOUT", "2 minuts", '"2m"'),
        ("NOTIFY_CALL_TIMEOUT", "2m", "at most 60"),
        ("NOTIFY_CALL_TIMEOUT", "0", "more than 0"),
        ("NOTIFY_CALL_TIMEOUT", "nan", '"15m"'),
        ("NOTIFY_UNKNOWN_TYPE_WAIT", "-1", '"15m"'),
        ("NOTIFY_INTAKE_NOTIFY", "maybe", "true or false"),
        ("NOTIFY_ENV", "../prod", "prod"),
        ("NOTIFY_LOG_FORMAT", "xml", "json or plain"),
        ("NOTIFY_TRACING", "perhaps", "true or false"),
        ("NOTIFY_HEALTH_PORT", "http", "8086"),
        ("NOTIFY_HEALTH_PORT", "65536", "8086"),
    ],
)
def test_a_wrong_value_names_its_variable_and_the_remedy(variable: str, value: str, remedy: str) -> None:
    with pytest.raises(NotConfigured) as refused:
        read({variable: value})

    assert str(refused.value).startswith(f"{variable}: ")
    assert remedy in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_the_program_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_BROKER_URL", "redis://environment")
    monkeypatch.setenv("NOTIFY_CALL_TIMEOUT", "1")

    configure(broker_url="redis://program")

    assert get().broker_url == "redis://program"
    assert get().call_timeout == 1.0


def test_an_unknown_setting_is_refused_with_the_right_name() -> None:
    with pytest.raises(NotConfigured, match="broker_url"):
        configure(broker="redis://localhost")  # type: ignore[call-arg]  # that is the mistake


def test_an_unset_broker_says_which_setting_and_shows_an_example() -> None:
    with pytest.raises(NotConfigured, match=r"NOTIFY_BROKER_URL=redis://.*configure\(broker_url="):
        Settings().need_broker_url()


def test_an_unset_database_says_which_setting_and_shows_an_example() -> None:
    with pytest.raises(NotConfigured, match=r"NOTIFY_DATABASE_URL=postgresql://"):
        Settings().need_database_url()


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cret@localhost:6379/0",
        "redis://:s3cret@localhost",
        "redis://user:s3cret/with/slashes@localhost/0",
        "rediss://localhost/0?password=s3cret",
        "rediss://localhost/0?ssl_password=s3cret&db=1",
        "postgresql://user:s3cret@localhost/notify",
        "host=localhost password=s3cret dbname=notify",
        "host=localhost password='s3cret with \\' quote' dbname=notify",
    ],
)
def test_no_password_is_ever_shown(url: str) -> None:
    assert "s3cret" not in without_secrets(url)
    assert "s3cret" not in repr(Settings(broker_url=url, database_url=url))
    assert "localhost" in without_secrets(url)


def test_a_key_is_made_as_it_says_and_never_shown() -> None:
    made = subprocess.run(NEW_KEY, shell=True, capture_output=True, text=True, check=True).stdout
    current = read({"NOTIFY_SECRET_KEY": made})
    assert current.need_secret_key() == made.strip()
    (shown,) = [it for it in settings.describe(current, {}) if it.name == "secret_key"]
    assert shown.value == "***"
    assert made.strip() not in repr(current)


@pytest.mark.parametrize(
    "text", ["canary", "Y2FuYXJ5", f"{KEY} canary", KEY[:-2], KEY.replace("_", "/")[:-1] + "!"]
)
def test_what_is_no_key_is_refused_unseen(text: str) -> None:
    with pytest.raises(NotConfigured, match=r"^NOTIFY_SECRET_KEY: .*openssl rand") as refused:
        read({"NOTIFY_SECRET_KEY": text})
    assert "canary" not in str(refused.value)


def test_an_endpoint_may_fail_for_an_hour_at_least() -> None:
    with pytest.raises(NotConfigured, match=r"^NOTIFY_ENDPOINT_FAILING: .*an hour or more"):
        read({"NOTIFY_ENDPOINT_FAILING": "10m"})


@pytest.mark.parametrize(
    "url", ["http://notify.example.com", "notify.example.com", "https://a b", "https://a/?x=1"]
)
def test_a_public_url_that_no_mail_can_carry_is_refused(url: str) -> None:
    with pytest.raises(NotConfigured, match=r"^NOTIFY_PUBLIC_URL: .*https://notify.example.com"):
        read({"NOTIFY_PUBLIC_URL": url})
