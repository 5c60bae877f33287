"""How a provider reads its options: what is wrong is named with the remedy, and secrets stay what they are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from channels.contract import Misconfigured
from channels.provider_options import Options, Secret
from tests.contract.conformance import dump

KEY = "key-493817"


def options(**given: object) -> Options:
    return Options("sms.acme", "sms-main", given, known=("token", "url", "proxy", "ca_file", "n", "words"))


def test_what_is_given_is_read(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    given = options(token=KEY, url="https://eu.api.example:8443/", ca_file=str(ca), n=3, words=["a", "b"])

    assert given.secret("token").reveal() == KEY
    assert options(token="{\n}\n").secret_document("token").reveal() == "{\n}\n"
    assert given.origin("url", "https://api.example") == "https://eu.api.example:8443"
    assert given.ca_file("ca_file") == str(ca)
    assert given.whole("n", 5) == 3
    assert given.texts("words") == ("a", "b")


def test_what_is_not_given_has_its_default() -> None:
    given = options()

    assert given.origin("url", "https://api.example") == "https://api.example"
    assert given.proxy("proxy") is None
    assert given.ca_file("ca_file") is None
    assert given.whole("n", 5) == 5
    assert given.texts("words") == ()
    assert given.flag("n") is False
    assert given.choice("n", ("a", "b"), "b") == "b"
    assert given.optional_secret("token") is None
    assert given.ports("n", (443,)) == (443,)
    assert given.networks("n") == ()


def test_an_option_that_nobody_reads_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(
        Misconfigured, match=r"sms-main: tokn is no option of sms\.acme; did you mean token\?"
    ):
        options(tokn=KEY)


Read = Callable[[Options], object]


@pytest.mark.parametrize(
    ("read", "value", "says"),
    [
        (lambda o: o.text("n", write='n = "x"'), None, 'is missing; write n = "x"'),
        (lambda o: o.text("n", write='n = "x"'), "  ", "is no text, or empty"),
        (lambda o: o.secret("n"), None, 'is missing; write n = "env:NAME"'),
        (lambda o: o.secret("n"), f"{KEY}\n", "look for a line break"),
        (lambda o: o.secret("n"), f"{KEY}ü", "no header carries"),
        (lambda o: o.secret("n"), 5, "is no text"),
        (lambda o: o.secret_document("n"), None, "set NAME, or NAME_FILE to a path"),
        (lambda o: o.secrets("n"), [5], r"n\[0\]"),
        (lambda o: o.whole("n", 1), True, "whole number that fits; write 1 or more"),
        (lambda o: o.whole("n", 1, most=9), 10, "write from 1 to 9"),
        (lambda o: o.whole("n", 1), 1.5, "whole number"),
        (lambda o: o.flag("n"), "yes", "write true or false"),
        (lambda o: o.choice("n", ("a", "b"), "a"), "c", "write one of a, b"),
        (lambda o: o.choice("n", ("a", "b"), "a"), ["a"], "write one of a, b"),
        (lambda o: o.texts("n"), "a", r'write n = \["\.\.\."\]'),
        (lambda o: o.ports("n", ()), [70_000], "list of ports"),
        (lambda o: o.ports("n", ()), "all", "list of ports"),
        (lambda o: o.networks("n"), ["10.0.0.0/99"], "list of networks"),
        (lambda o: o.origin("n", "https://a.example"), "http://a.example", "for this machine alone"),
        (lambda o: o.origin("n", "https://a.example"), "https://a.example/v1", "write https://HOST"),
        (lambda o: o.origin("n", "https://a.example"), "https://u:p@a.example", "write https://HOST"),
        (lambda o: o.origin("n", "https://a.example"), "https://a.example:x", "write https://HOST"),
        (lambda o: o.origin("n", "https://a.example"), "ftp://a.example", "write https://HOST"),
        (lambda o: o.origin("n", "https://a.example"), "https://a .example", "write https://HOST"),
        (lambda o: o.proxy("n"), "https://proxy.example", "write http://HOST:PORT"),
        (lambda o: o.proxy("n"), "http://u:p@proxy.example/x", "write http://HOST:PORT"),
        (lambda o: o.ca_file("n"), "/nowhere/ca.pem", "check the path"),
        (lambda o: o.ca_file("n"), __file__, "PEM"),
    ],
)
def test_a_wrong_option_is_named_with_what_to_write(read: Read, value: object, says: str) -> None:
    given = options() if value is None else options(n=value)

    with pytest.raises(Misconfigured, match=says) as caught:
        read(given)

    assert str(caught.value).startswith("option: sms-main: n")
    assert KEY not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:1"])
def test_an_api_on_this_machine_may_do_without_tls(url: str) -> None:
    assert options(url=url).origin("url", "https://a.example") == url


def test_a_secret_is_seen_only_where_it_is_revealed() -> None:
    secret = Secret(KEY)

    assert secret.reveal() == KEY
    for told in (
        repr(secret),
        str(secret),
        f"{secret}",
        dump(secret),
        dump({"a": [secret]}),
        repr(options(token=KEY)),
    ):
        assert KEY not in told
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            copied(secret)
