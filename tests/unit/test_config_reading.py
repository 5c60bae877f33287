"""Layers, their origins, and what a wrong configuration is told: file, line, the nearest right name, the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify_tasks import durations
from notify_tasks.configuration import secrets
from notify_tasks.configuration.changes import changes
from notify_tasks.configuration.layers import parsed
from notify_tasks.configuration.model import Configuration
from notify_tasks.configuration.origins import BadConfiguration
from notify_tasks.configuration.reading import of_document, read
from notify_tasks.configuration.showing import rows
from notify_tasks.rates import Rate
from notify_tasks.sandbox import credentials

ROOT = Path(__file__).parents[2]
BASE = """\
[providers.sms-main]
use = "sms.sandbox"
url = "env:SMS_URL"
timeout = "5s"

[providers.sms-other]
use = "sms.sandbox"
url = "http://127.0.0.1:1"
[channels.sms]
pool = [
  { provider = "sms-main", weight = 90 },
  "sms-other",
]
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write `notify.toml` and, by name, its overlays; returns the base file."""

    def to_files(base: str = BASE, **overlays: str) -> Path:
        path = tmp_path / "notify.toml"
        path.write_text(base)
        for env, text in overlays.items():
            (tmp_path / f"notify.{env}.toml").write_text(text)
        return path

    return to_files


def refusal(path: Path, env: str | None = None, **environment: str) -> list[str]:
    """What is said of a wrong configuration, a line a problem, without the folder."""
    with pytest.raises(BadConfiguration) as refused:
        read(path, env, environment)
    assert all(str(problem) in str(refused.value) for problem in refused.value.problems)
    return [str(problem).replace(f"{path.parent}/", "") for problem in refused.value.problems]


def shown(configuration: Configuration, **environment: str) -> dict[str, tuple[str, str]]:
    """Every key with its value and its place."""
    return {
        row.key: (row.value, f"{row.origin}".rpartition("/")[2]) for row in rows(configuration, environment)
    }


# --- layers -------------------------------------------------------------------------------------------


def test_each_layer_lies_over_the_one_before_and_every_value_knows_its_place(write: Write) -> None:
    path = write(prod='[providers.sms-main]\nrate = "50/s"\n[providers.sms-other]\nenabled = false\n')
    found = read(
        path, "prod", {"NOTIFY_PROVIDERS__SMS_MAIN__RATE": "10/s", "SMS_URL": "http://hunter2.example"}
    )

    assert found.providers["sms-main"].rate == Rate(10, 1)
    assert shown(found, SMS_URL="http://hunter2.example") == {
        "providers.sms-main.use": ("sms.sandbox", "notify.toml:2"),
        "providers.sms-main.enabled": ("true", "default"),
        "providers.sms-main.timeout": ("5s", "notify.toml:4"),
        "providers.sms-main.rate": ("10/s", "NOTIFY_PROVIDERS__SMS_MAIN__RATE"),
        "providers.sms-main.url": ("env:SMS_URL (set)", "notify.toml:3"),
        "providers.sms-other.use": ("sms.sandbox", "notify.toml:7"),
        "providers.sms-other.enabled": ("false", "notify.prod.toml:4"),
        "providers.sms-other.timeout": ("10s", "default"),
        "providers.sms-other.rate": ("none", "default"),
        "providers.sms-other.url": ("http://127.0.0.1:1", "notify.toml:8"),
        "channels.sms.pool[0]": ("sms-main, weight 90", "notify.toml:11"),
        "channels.sms.pool[1]": ("sms-other, weight 1", "notify.toml:12"),
        "channels.sms.sandbox": ("none", "default"),
    }
    assert [it.name for it in found.files] == ["notify.toml", "notify.prod.toml"]
    assert found.variables == ("NOTIFY_PROVIDERS__SMS_MAIN__RATE",)


def test_tables_are_merged_and_lists_are_replaced(write: Write) -> None:
    found = read(write(x='[channels.sms]\npool = ["sms-other"]\nsandbox = "sms-main"\n'), "x", {})
    assert found.pools["sms"].members == (("sms-other", 1.0),)
    assert shown(found)["channels.sms.pool[0]"] == ("sms-other, weight 1", "notify.x.toml:2")
    assert found.pools["sms"].names() == ("sms-other", "sms-main")


def test_variables_are_toml_or_text(write: Write) -> None:
    environment = {
        "NOTIFY_CHANNELS__SMS__POOL": '["sms-other", { provider = "sms-main", weight = 0 }]',
        "NOTIFY_PROVIDERS__SMS_MAIN__ENABLED": "false",
        "NOTIFY_PROVIDERS__SMS_MAIN__TIMEOUT": "7",
        "NOTIFY_PROVIDERS__SMS_MAIN__URL": "http://127.0.0.1:3",
        "NOTIFY_PROVIDERS__SMS_MAIN__TOKEN": "12345",
        "NOTIFY_PROVIDERS__SMS_OTHER__RATE": "",
        "NOTIFY_BROKER_URL": "redis://x",
    }
    found = read(write(), None, environment)

    main = found.providers["sms-main"]
    assert found.pools["sms"].members == (("sms-other", 1.0), ("sms-main", 0.0))
    assert (main.enabled, main.timeout) == (False, 7.0)
    assert main.options == {"url": "http://127.0.0.1:3", "token": "12345"}
    assert shown(found)["providers.sms-main.token"] == ("***", "NOTIFY_PROVIDERS__SMS_MAIN__TOKEN")
    assert found.providers["sms-other"].rate is None


@given(st.text())
def test_whatever_a_variable_holds_is_one_value(text: str) -> None:
    assert parsed(text) == text or not isinstance(parsed(text), str) or text.strip()[0] in "\"'"


def test_a_variable_cannot_smuggle_in_keys() -> None:
    assert parsed('1\n[providers.evil]\nuse = "sms.sandbox"') == '1\n[providers.evil]\nuse = "sms.sandbox"'


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("NOTIFY_PROVIDER__SMS_MAIN__RATE", "there is no such table. Did you mean NOTIFY_PROVIDERS__...?"),
        ("NOTIFY_PROVIDERS__SMS_MIAN__RATE", "no file has providers.sms_mian. Did you mean SMS_MAIN?"),
        ("NOTIFY_PROVIDERS__SMS_MAIN", "it names no key. Write NOTIFY_PROVIDERS__<NAME>__TIMEOUT"),
        ("NOTIFY_CHANNELS__FAX__POOL", "no file has channels.fax. There are SMS"),
    ],
)
def test_a_variable_that_belongs_to_nothing_is_refused(write: Write, variable: str, said: str) -> None:
    assert refusal(write(), **{variable: "10/s"}) == [f"{variable}: {said}"]


def test_a_variable_that_may_mean_two_is_refused(write: Write) -> None:
    twice = BASE + '[providers.sms_main]\nuse = "sms.sandbox"\n'
    assert refusal(write(twice), NOTIFY_PROVIDERS__SMS_MAIN__RATE="1/s") == [
        "NOTIFY_PROVIDERS__SMS_MAIN__RATE: it may mean sms-main or sms_main. Rename one of them in the file"
    ]


def test_a_wrong_value_of_a_variable_names_the_variable(write: Write) -> None:
    assert refusal(write(), NOTIFY_PROVIDERS__SMS_MAIN__RATE="fast") == [
        (
            "NOTIFY_PROVIDERS__SMS_MAIN__RATE: providers.sms-main.rate: it is not a rate. "
            'Write calls in a unit of time, s, min, h or d: "50/s", "600/min"'
        )
    ]


def test_the_version_names_the_files_and_not_the_environment(write: Write) -> None:
    first = read(write(x=""), None, {})
    same = read(write(), None, {"NOTIFY_PROVIDERS__SMS_MAIN__RATE": "1/s", "SMS_URL": "http://127.0.0.1:7"})
    other, overlaid = read(write(BASE + "# a word\n"), None, {}), read(write(), "x", {})
    assert first.version == same.version
    assert len({first.version, other.version, overlaid.version}) == 3


# --- files that cannot be read --------------------------------------------------------------------------


def test_files_that_are_missing_say_what_to_do(write: Write, tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.toml") == [
        "none.toml: there is no such file. Type this in the repository's folder, or set NOTIFY_CONFIG"
    ]
    path = write(prod="", dev="")
    assert refusal(path, "prd") == [
        "notify.prd.toml: there is no such file, and NOTIFY_ENV is 'prd'. Did you mean NOTIFY_ENV=prod?"
    ]
    assert refusal(path, "staging") == [
        (
            "notify.staging.toml: there is no such file, and NOTIFY_ENV is 'staging'. "
            "Add the file (it may be empty), or unset NOTIFY_ENV"
        )
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[providers.a\nuse = 1\n",
            "notify.toml:1: no TOML here. Mend this line, or the one before it (expected",
        ),
        ('a = "x"\nb = hunter2\n', 'notify.toml:2: no TOML here. Put a text in quotes: "text"; numbers'),
        ('a = ["x",\n  "y"\n', "notify.toml:2: no TOML here, at the end of the file. Mend this line"),
        ('a = """hunter2', "notify.toml:1: no TOML here, at the end of the file. Mend this line"),
        (
            "[a]\nx = 1\n[b]\n[a]\n",
            "notify.toml:4: the table [a] is there twice. Write it once, with all its keys",
        ),
        ("[p.a-b]\n[p.a-b]\n", "notify.toml:2: the table [p.a-b] is there twice. Write it once"),
        ("x = 1\nx = 2\n", "notify.toml:2: this key is there twice. Write it once"),
        ("x = { a = 1, a = 2 }\n", "notify.toml:1: a key is twice in this inline table. Write it once"),
        ("x = " + "[" * 5000 + "]" * 5000, "notify.toml: its values are nested too deeply. Write them flat"),
        ("\udcff", "notify.toml: it cannot be read (UnicodeDecodeError). Make it a text file in UTF-8"),
    ],
)
def test_what_is_no_toml_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "notify.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    (found,) = refusal(path)
    assert found.startswith(said)
    assert "hunter2" not in found


def test_a_mark_at_the_files_beginning_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "notify.toml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert read(path, None, {}).providers


def test_every_file_that_is_wrong_is_named(write: Write) -> None:
    said = refusal(write("[", prod="]"), "prod")
    assert [it.partition(": ")[0] for it in said] == ["notify.toml:1", "notify.prod.toml:1"]


# --- what is wrong in them ------------------------------------------------------------------------------

A = '[providers.a]\nuse = "sms.sandbox"\n'
SMS = '[channels.sms]\npool = ["a"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # tables and keys
        ("", "notify.toml:1: channels: no channel has a pool. Write, say, [channels.email] and pool ="),
        (
            A + SMS + "[chanels]\n",
            "notify.toml:5: chanels: there is no such table. Did you mean [channels.<name>]?",
        ),
        (
            'broker_url = "x"\n' + A + SMS,
            "notify.toml:1: broker_url: there is no such table. Settings come from",
        ),
        ("providers = 5\n" + SMS, "notify.toml:1: providers: 5 is no table. Write [providers.<name>]"),
        (
            "[providers]\na = 5\n" + SMS,
            "notify.toml:2: providers.a: 5 is no table. Write [providers.<name>], with",
        ),
        (
            A + "[channels]\nsms = []\n",
            "notify.toml:4: channels.sms: a list is no table. Write [channels.<channel>]",
        ),
        (
            A + "[channels.fax]\npool = ['a']\n",
            "notify.toml:3: channels.fax: 'fax' is no channel. There are chat, email",
        ),
        (
            A + "[channels.emial]\npool = ['a']\n",
            "notify.toml:3: channels.emial: 'emial' is no channel. Did you mean [ch",
        ),
        (
            A + SMS + 'pol = ["a"]\n',
            "notify.toml:5: channels.sms.pol: there is no such key. Did you mean pool?",
        ),
        (
            A + SMS + 'sandbx = "a"\n',
            "notify.toml:5: channels.sms.sandbx: there is no such key. Did you mean sandbox?",
        ),
        # providers
        (
            "[providers.a]\n" + SMS,
            "notify.toml:1: providers.a.use: it is missing. Write the name of a file in chan",
        ),
        (
            "[providers.a]\nuse = 5\n" + SMS,
            "notify.toml:2: providers.a.use: 5 is no text. Write the name of a file",
        ),
        (
            '[providers.a]\nuse = "sms.sandbx"\n' + SMS,
            "notify.toml:2: providers.a.use: there is no provider 'sms.sandbx'. Did you mean use = \"sms.sandbox\"?",
        ),
        (
            '[providers.a]\nuse = "x"\n' + SMS,
            "notify.toml:2: providers.a.use: there is no provider 'x'. There are",
        ),
        (
            A + SMS + '[providers.aa]\nrate = "1/s"\n',
            "notify.toml:5: providers.aa.use: it is missing. Did you mean [providers.a]? Or write the name",
        ),
        # units
        (
            A + "timeout = 0\n" + SMS,
            "notify.toml:3: providers.a.timeout: 0 is out of range. Write more than 0 and",
        ),
        (
            A + "timeout = 61\n" + SMS,
            "notify.toml:3: providers.a.timeout: 61 is out of range. Write more than 0",
        ),
        (
            A + 'timeout = "2m"\n' + SMS,
            "notify.toml:3: providers.a.timeout: '2m' is out of range. Write more than 0",
        ),
        (
            A + 'timeout = "10 sek"\n' + SMS,
            "notify.toml:3: providers.a.timeout: 'sek' is no unit of time. Write ms, s, m, h or d",
        ),
        (
            A + 'timeout = "10 secnds"\n' + SMS,
            "notify.toml:3: providers.a.timeout: 'secnds' is no unit of time. Did you mean \"10s\"?",
        ),
        (
            A + "timeout = true\n" + SMS,
            "notify.toml:3: providers.a.timeout: True is no span of time. Write seconds",
        ),
        (
            A + "timeout = 1979-05-27\n" + SMS,
            "notify.toml:3: providers.a.timeout: a date is no span of time. Write",
        ),
        (
            A + "timeout = nan\n" + SMS,
            "notify.toml:3: providers.a.timeout: nan is no span of time. Write seconds",
        ),
        (
            A + "rate = 50\n" + SMS,
            'notify.toml:3: providers.a.rate: 50 has no unit. Write "50/s" or "50/min"',
        ),
        (
            A + 'rate = "50/fortnight"\n' + SMS,
            "notify.toml:3: providers.a.rate: 'fortnight' is no unit of time.",
        ),
        (
            A + 'rate = "0/s"\n' + SMS,
            "notify.toml:3: providers.a.rate: a rate of nothing sends nothing. Write enab",
        ),
        (
            A + 'enabled = "no"\n' + SMS,
            "notify.toml:3: providers.a.enabled: 'no' is neither true nor false. Write",
        ),
        # pools
        (A + "[channels.sms]\n", "notify.toml:3: channels.sms.pool: it is missing. Write pool = ["),
        (
            A + "[channels.sms]\npool = []\n",
            "notify.toml:4: channels.sms.pool: it names no provider. Write pool = [",
        ),
        (
            A + '[channels.sms]\npool = "a"\n',
            "notify.toml:4: channels.sms.pool: 'a' is no list. Write pool = [",
        ),
        (
            A + '[channels.sms]\npool = [\n  "a",\n  "aa",\n]\n',
            "notify.toml:6: channels.sms.pool[1]: there is no provider named 'aa'. Did you mean a?",
        ),
        (
            A + '[channels.sms]\npool = [\n  "a",\n  "mail",\n]\n',
            "notify.toml:6: channels.sms.pool[1]: there is no provider named 'mail'. Add [providers.mail]. There are a",
        ),
        (
            A + '[channels.sms]\npool = ["a", 5]\n',
            'notify.toml:4: channels.sms.pool[1]: 5 is no table. Write "<a pro',
        ),
        (
            A + '[channels.sms]\npool = ["a",\n "a"]\n',
            "notify.toml:5: channels.sms.pool[1]: 'a' is in the pool twice. Name it once, with one weight",
        ),
        (
            A + '[channels.sms]\npool = [{ provider = "a", wieght = 3 }]\n',
            "notify.toml:4: channels.sms.pool[0].wieght: there is no such key. Did you mean weight?",
        ),
        (
            A + "[channels.sms]\npool = [{ weight = 3 }]\n",
            'notify.toml:4: channels.sms.pool[0].provider: it is missing. Write provider = "<a provider>"',
        ),
        *(
            (
                A + f'[channels.sms]\npool = [{{ provider = "a", weight = {weight} }}]\n',
                f"notify.toml:4: channels.sms.pool[0].weight: {said} is no weight. Write a number, 0 or more",
            )
            for weight, said in (
                ("-1", "-1"),
                ('"much"', "'much'"),
                ("nan", "nan"),
                ("inf", "inf"),
                ("true", "True"),
            )
        ),
        (
            A + '[channels.email]\npool = ["a"]\n',
            "notify.toml:4: channels.email.pool[0]: a is sms.sandbox, which carries sms. Name a provider whose use",
        ),
        (
            A + SMS + 'sandbox = "b"\n',
            "notify.toml:5: channels.sms.sandbox: there is no provider named 'b'. ",
        ),
        (
            A + SMS + "sandbox = 5\n",
            'notify.toml:5: channels.sms.sandbox: 5 is no text. Write sandbox = "<a pro',
        ),
        # secrets
        (
            A + 'password = "hunter2"\n' + SMS,
            (
                "notify.toml:3: providers.a.password: a secret does not belong into a file. "
                'Write "env:A_PASSWORD" and set that variable, or A_PASSWORD_FILE to a file that holds it'
            ),
        ),
        (
            A + 'url = "http://me:hunter2@x"\n' + SMS,
            "notify.toml:3: providers.a.url: a secret does not belong into",
        ),
        (
            A + 'rooms.ops = "https://hooks.example/abc"\n' + SMS,
            "notify.toml:3: providers.a.rooms.ops: a secret does not belong into a file. ",
        ),
        (
            A + "api_key = 12345\n" + SMS,
            "notify.toml:3: providers.a.api_key: a secret does not belong into a file. ",
        ),
        (
            A + '[providers.a.more]\ntokens = [\n "env:T", "hunter2"]\n' + SMS,
            'notify.toml:5: providers.a.more.tokens[1]: a secret does not belong into a file. Write "env:A_MORE_TOK',
        ),
        (
            A + 'url = "env:"\n' + SMS,
            'notify.toml:3: providers.a.url: the variable has no name. Write "env:A_URL"',
        ),
        (
            A + 'url = "env:SMS URL"\n' + SMS,
            "notify.toml:3: providers.a.url: 'SMS URL' is no name of a variable. Write \"env:A_URL\"",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_its_remedy(write: Write, text: str, said: str) -> None:
    found = refusal(write(text))
    assert len(found) == 1, found
    assert found[0].startswith(said)
    assert "hunter2" not in found[0]
    assert ". " in found[0]


def test_all_problems_come_at_once_in_the_order_of_their_lines(write: Write) -> None:
    text = (
        '[providers.a]\nuse = "sms.sandbox"\nrate = 5\ntimeout = "10 parsec"\n'
        '[providers.b]\nuse = "sms.nobody"\n[channels.sms]\npool = ["c"]\n[chanels.email]\n'
    )
    said = refusal(
        write(text, prod='[channels.sms]\nsandbox = "d"\n'), "prod", NOTIFY_PROVIDERS__X__RATE="1/s"
    )
    assert [it.partition(": ")[0] for it in said] == [
        *("notify.toml:3", "notify.toml:4", "notify.toml:6", "notify.toml:8", "notify.toml:9"),
        "notify.prod.toml:2",
        "NOTIFY_PROVIDERS__X__RATE",
    ]


def test_several_problems_make_a_text_of_several_lines() -> None:
    with pytest.raises(BadConfiguration) as refused:
        of_document({"providers": 5, "channels": 6}, "here.toml")
    assert str(refused.value).splitlines()[0] == "the configuration has 2 problems:"
    assert "\n" not in refused.value.in_one_line


# --- what works and may surprise ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            A + SMS + '[providers.b]\nuse = "sms.sandbox"\n',
            "notify.toml:5: providers.b: it is in no pool. Name it in channels.sms.pool",
        ),
        (
            A + "enabled = false\n" + SMS,
            (
                "notify.toml:5: channels.sms.pool: every provider in it is switched off, and what is sent by sms "
                "waits. Switch one on (enabled = true), or add one"
            ),
        ),
    ],
)
def test_a_surprise_is_a_warning(write: Write, text: str, said: str) -> None:
    path = write(text)
    assert [str(it).replace(f"{path.parent}/", "") for it in read(path, None, {}).warnings] == [said]


# --- secrets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("password", "x", True),
        ("smtp_password", "x", True),
        ("api-key", "x", True),
        ("apikey", "x", True),
        ("AuthToken", "x", True),
        ("client_secret", "x", True),
        ("signing_key", "x", True),
        ("dkim_key", "x", True),
        ("bounce_key", "x", True),
        ("dkim_domain", "x", False),
        ("dsn", "postgresql://u:p@h/x", True),
        ("dsn", "host=h password=p", True),
        ("url", "https://h/?token=abc", True),
        ("token", 5, True),
        ("token", "env:TOKEN", False),
        ("token", "", False),
        ("token", True, False),
        ("token", "{token}", False),
        ("token", "Bearer {token}x", True),
        ("token_url", "https://h/token", False),
        ("private_key_file", "/run/key", False),
        ("public_key", "x", False),
        ("key", "x", False),
        ("sender", "Shop <shop@example.com>", False),
        ("url", "http://127.0.0.1:8025", False),
    ],
)
def test_what_looks_like_a_secret(name: str, value: object, secret: bool) -> None:  # noqa: FBT001 - a table
    assert secrets.is_secret(("providers", "a", name), value) is secret
    if secret:
        assert (
            str(value) not in str(secrets.masked((name,), {"x": [value]} if name == "dsn" else value)).split()
        )


def test_a_hook_of_a_chat_is_a_secret_and_its_rooms_name_is_none() -> None:
    rooms = {"ops": "https://hooks.example/abc", "dev": {"url": "https://hooks.example/d", "secret": "env:S"}}
    assert list(secrets.literals({"rooms": rooms})) == [("rooms", "ops"), ("rooms", "dev", "url")]
    assert "hooks" not in str(secrets.masked(("rooms",), rooms))


# --- words ----------------------------------------------------------------------------------------------


def test_a_change_is_told_in_words_and_without_values(write: Write) -> None:
    old = read(write(), None, {})
    new = BASE.replace('"5s"', '"800ms"').replace("env:SMS_URL", "env:OTHER").replace("90", "50")
    new = new.replace(
        'use = "sms.sandbox"\nurl = "http',
        'use = "sms.sandbox"\nenabled = false\nrate = "9/min"\nurl = "http',
    )
    new += (
        'sandbox = "sms-other"\n[providers.inbox]\nuse = "inapp.store"\n[channels.inapp]\npool = ["inbox"]\n'
    )
    assert changes(old, read(write(new), None, {})) == [
        "inbox is new",
        "timeout of sms-main 5s -> 800ms",
        "url of sms-main changed",
        "sms-other switched off",
        "rate of sms-other none -> 9/min",
        "the pool of inapp is new: inbox 1",
        "pool of sms sms-main 90, sms-other 1 -> sms-main 50, sms-other 1",
        "sandbox of sms none -> sms-other",
    ]
    assert changes(old, old) == []


@given(st.integers(0, 10**6))
def test_a_span_of_time_is_read_as_it_is_written(milliseconds: int) -> None:
    assert durations.parse(durations.text(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


# --- what ships -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [None, "dev", "test", "prod"])
def test_the_shipped_files_are_in_order(env: str | None, tmp_path: Path) -> None:
    found = read(ROOT / "notify.toml", env, {})
    assert found.warnings == ()
    assert "smtp-main" in found.serving(["email"])
    if env in {"dev", "test"}:  # nothing leaves the machine, whatever is sent
        assert len(found.pools) == 7
        variables = {name for it in found.providers.values() for _, name in secrets.references(it.options)}
        told = {
            "SANDBOX_SMTP_URL",
            "SANDBOX_CA_FILE",
            "SANDBOX_HTTP_URL",
            *credentials.environment(tmp_path, "-"),
        }
        assert variables <= told | {name.removesuffix("_FILE") for name in told}
