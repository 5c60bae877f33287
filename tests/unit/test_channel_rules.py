"""To whom a channel goes, and how often: what a wrong rule is told, and what a new one changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from notify_tasks import countries
from notify_tasks.configuration.changes import changes
from notify_tasks.configuration.origins import BadConfiguration
from notify_tasks.configuration.reading import read
from notify_tasks.rates import Rate
from notify_tasks.rendering import BrokenType, Catalog

BASE = """\
[providers.sms-main]
use = "sms.sandbox"
url = "http://127.0.0.1:1"
[providers.smtp-main]
use = "email.smtp"
[channels.email]
pool = ["smtp-main"]
{email}
[channels.sms]
pool = ["sms-main"]
{sms}
"""
NO_MESSAGES = "counts no messages. Write a whole number up to 1000 and a unit of time"


def config(root: Path, *, sms: str = "", email: str = "") -> Path:
    path = root / "notify.toml"
    path.write_text(BASE.format(sms=sms, email=email))
    return path


def test_rules_are_read_from_the_file_and_the_environment(tmp_path: Path) -> None:
    path = config(tmp_path, sms='per_recipient = ["1/min", "5/h", "10/day"]\ncountries = ["DE", "AT"]')
    found = read(path, None, {})
    assert found.rules["sms"].per_recipient == (Rate(1, 60), Rate(5, 3600), Rate(10, 86400))
    assert found.rules["sms"].countries == {"DE", "AT"}
    assert found.rules["email"].per_recipient == ()
    assert found.rules["email"].countries is None

    other = read(path, None, {"NOTIFY_CHANNELS__SMS__COUNTRIES": '["US"]'})
    assert other.rules["sms"].countries == {"US"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            'per_recipient = "1/min"',
            'channels.sms.per_recipient: it is no list of limits. Write per_recipient = ["1/min", "5/h", "10/day"]',
        ),
        (
            'per_recipient = ["1/minit"]',
            "channels.sms.per_recipient: 'minit' is no unit of time. Did you mean \"1/min\"?",
        ),
        (
            'per_recipient = ["1.5/min"]',
            f"channels.sms.per_recipient: '1.5/min' {NO_MESSAGES}",
        ),
        (
            'per_recipient = ["5000/day"]',
            f"channels.sms.per_recipient: '5000/day' {NO_MESSAGES}",
        ),
        (
            'countries = "DE"',
            'channels.sms.countries: it is no list of countries. Write countries = ["DE", "AT"]',
        ),
        ('countries = ["de"]', "channels.sms.countries: 'de' is no country. Write \"DE\""),
        (
            'countries = ["Germany"]',
            'channels.sms.countries: \'Germany\' is no country. Write codes of ISO 3166: "DE", "AT", "US"',
        ),
        (
            'contries = ["DE"]',
            "channels.sms.contries: there is no such key. Did you mean countries?",
        ),
    ],
)
def test_a_wrong_rule_is_told_with_file_line_and_remedy(tmp_path: Path, rule: str, said: str) -> None:
    path = config(tmp_path, sms=rule)
    with pytest.raises(BadConfiguration) as refused:
        read(path, None, {})
    (problem,) = refused.value.problems
    assert str(problem) == f"{path}:11: {said}"


def test_only_sms_has_countries(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration) as refused:
        read(config(tmp_path, email='countries = ["DE"]'), None, {})
    (problem,) = refused.value.problems
    assert "notify.toml:8: channels.email.countries: email has no phone numbers" in str(problem)


def test_a_new_configuration_says_what_it_changes(tmp_path: Path) -> None:
    old = read(config(tmp_path, sms='countries = ["DE"]'), None, {})
    new = read(config(tmp_path, sms='per_recipient = ["1/min"]\ncountries = ["DE", "AT"]'), None, {})
    assert changes(old, new) == [
        "limits of a recipient by sms none -> 1/min",
        "countries of sms DE -> AT, DE",
    ]
    assert changes(new, read(config(tmp_path), None, {})) == [
        "limits of a recipient by sms 1/min -> none",
        "countries of sms AT, DE -> all",
    ]


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("+4915112345678", "DE"),
        ("+12025550143", "US"),
        ("+14165550143", "CA"),
        ("+18765551234", "JM"),
        ("+15550001234", None),  # of no area: what the sandbox plays
        ("+881612345678", None),  # a satellite phone
        ("nonsense", None),
    ],
)
def test_countries_of_numbers(number: str, country: str | None) -> None:
    assert countries.of_number(number) == country


# --- a type's own limit -----------------------------------------------------------------------------------


def write_type(root: Path, limit: str) -> Catalog:
    folder = root / "login.code"
    folder.mkdir()
    (folder / "notification.toml").write_text(f'channels = ["sms"]\n{limit}\n')
    (folder / "sms.txt").write_text("Your code")
    (folder / "example.json").write_text("{}")
    return Catalog(root)


def test_a_type_may_have_limits_of_its_own(tmp_path: Path) -> None:
    loaded = write_type(tmp_path, '[limit]\nper_recipient = ["1/min", "5/h"]').get("login.code")
    assert loaded is not None
    assert loaded.policy.per_recipient == (Rate(1, 60), Rate(5, 3600))


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ('limit = "1/min"', "limit is no table with per_recipient alone"),
        ('[limit]\nper_persn = ["1/min"]', "limit is no table with per_recipient alone"),
        ('[limit]\nper_recipient = ["often"]', "limit.per_recipient: it is not a rate"),
    ],
)
def test_a_types_wrong_limit_is_told_with_its_line(tmp_path: Path, limit: str, said: str) -> None:
    with pytest.raises(BrokenType) as broken:
        write_type(tmp_path, limit).get("login.code")
    (problem,) = broken.value.problems
    assert (problem.line, problem.problem.startswith(said)) == (2, True), problem
