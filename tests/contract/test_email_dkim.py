"""Signed mails: what arrives at a relay is verified here by the text of RFC 6376, with code of its own."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.contract import Attachment, Deadline, EmailContent, Message, Misconfigured
from channels.email._dkim import Signer, read_key, relaxed_body, relaxed_field, signed_data
from channels.email._mime import Letterhead, mailbox
from channels.email.smtp import SmtpProvider
from channels.loader import load
from tests.contract.conformance import a_message, dump
from tests.contract.smtp_peers import ScriptedRelay, real_relay

URL = "https://mail.example.com/u/Zm9v-token_493817?l=a,b"
PDF = Attachment("Rechnung März.pdf", "application/pdf", bytes(range(256)) * 40 + b"\r\n.\r\n \r\n\r\n")
SHORT = EmailContent("Your order", "It left today.\n", "<p>It left today.</p>")
CONTENTS = {
    "short": SHORT,
    "text alone": EmailContent("Your order", "It left today."),
    "long subject": EmailContent(
        "Ihre Bestellung 日本語: Größe 42 ist unterwegs, und dieser Betreff braucht mehr als eine Zeile", "x"
    ),
    "long plain subject": EmailContent("  word  " * 30, "x"),
    "not ASCII": EmailContent("Grüße", "日本語\n" * 200, "<p>Grüße, Zoë \N{WAVING HAND SIGN}</p>"),
    "attachment": EmailContent("Invoice", "Enclosed.", "<p>Enclosed.</p>", (PDF, PDF)),
    "empty text": EmailContent("Nothing", ""),
    "empty text and html": EmailContent("Nothing", "", ""),
    "empty lines at the end": EmailContent("Lines", "one\n\n \n\t\n\n\n"),
    "spaces": EmailContent(
        "Spaces", "  two  between \t and behind  \n\t\n.\n..dots\n. \nlast \t", " <p> </p>\t "
    ),
    "unsubscribe": replace(SHORT, unsubscribe=URL),
    "long url": replace(SHORT, unsubscribe="https://a.example/" + "x" * 882),
}

# --- a verifier of our own, by RFC 6376, sections 3.4 to 3.7 and 6.1 --------------------------------


class Broken(Exception):
    """The signature does not hold."""


def verify(mail: bytes, dns: Mapping[str, str], which: int = 0) -> dict[str, str]:
    """The tags of a signature that holds."""
    head, body = mail.split(b"\r\n\r\n", 1)
    fields: list[bytes] = []
    for line in head.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            fields[-1] += line
        else:
            fields.append(line)
    own = [each for each in fields if each.lower().startswith(b"dkim-signature:")][which]
    tags = tag_list(own.split(b":", 1)[1].decode())
    names = tags["h"].lower().split(":")
    assert (tags["v"], tags["c"]) == ("1", "relaxed/relaxed")
    assert "from" in names
    assert not {"l", "x"} & tags.keys()

    lines = [re.sub(rb"[ \t]+", b" ", line).removesuffix(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    if (
        base64.b64encode(hashlib.sha256(b"".join(line + b"\r\n" for line in lines)).digest())
        != tags["bh"].encode()
    ):
        raise Broken("body")

    from_below = fields[::-1]
    covered = b""
    for name in names:
        for place, each in enumerate(from_below):
            if each.split(b":", 1)[0].strip().lower().decode() == name:
                covered += relax(from_below.pop(place)) + b"\r\n"
                break
    covered += relax(re.sub(rb"(;[ \t]*b=)[^;]*", rb"\1", own))
    record = tag_list(dns[f"{tags['s']}._domainkey.{tags['d']}"])
    assert tags["a"] == f"{record['k']}-sha256"
    check(record, base64.b64decode(tags["b"], validate=True), covered)
    return tags


def tag_list(text: str) -> dict[str, str]:
    pairs = [each.partition("=") for each in re.sub(r"\s+", "", text).split(";") if each.strip()]
    found = {name: value for name, _, value in pairs}
    assert len(found) == len(pairs), "a tag stands there twice"
    return found


def relax(field: bytes) -> bytes:
    name, value = field.split(b":", 1)
    return name.strip().lower() + b":" + b" ".join(each for each in re.split(rb"[ \t]+", value) if each)


def check(record: Mapping[str, str], signature: bytes, covered: bytes) -> None:
    public = base64.b64decode(record["p"], validate=True)
    try:
        if record["k"] == "ed25519":
            key = ed25519.Ed25519PublicKey.from_public_bytes(public)
            key.verify(signature, hashlib.sha256(covered).digest())
        else:
            pair = serialization.load_der_public_key(public)
            assert isinstance(pair, rsa.RSAPublicKey)
            pair.verify(signature, covered, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise Broken("head") from None


# --- keys -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    pem: str
    dns: dict[str, str]
    """The record that the owner of the domain publishes."""

    def options(self) -> dict[str, str]:
        return {"dkim_domain": "example.com", "dkim_selector": "s1", "dkim_key": self.pem}


def pem_of(key: PrivateKeyTypes, passphrase: bytes | None = None) -> str:
    protection = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, protection).decode()


def pair_of(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> Pair:
    if isinstance(key, rsa.RSAPrivateKey):
        kind, form = "rsa", serialization.PublicFormat.SubjectPublicKeyInfo
        public = key.public_key().public_bytes(serialization.Encoding.DER, form)
    else:
        kind, public = "ed25519", key.public_key().public_bytes_raw()
    record = f"v=DKIM1; k={kind}; p={base64.b64encode(public).decode()}"
    return Pair(pem_of(key), {"s1._domainkey.example.com": record})


RSA = pair_of(rsa.generate_private_key(65537, 2048))
ED25519 = pair_of(ed25519.Ed25519PrivateKey.generate())


def mail(content: EmailContent = SHORT, address: str = "bob@customer.example") -> Message:
    return a_message("email", address, content)


def composed(content: EmailContent, reply_to: str | None = None) -> bytes:
    return Letterhead("Shop <shop@example.com>", reply_to, "example.com").compose(
        mail(content), content, mailbox("bob@customer.example")
    )


Factory = Callable[..., SmtpProvider]


@pytest.fixture
def provider() -> Iterator[Factory]:
    """Builds `email.smtp` for a port of this machine."""
    built: list[SmtpProvider] = []

    def make(port: int, **options: Any) -> SmtpProvider:
        given = {"url": f"smtp+plain://127.0.0.1:{port}", "sender": "Größe <shop@example.com>", **options}
        made = load("email.smtp", "smtp-main", given)
        assert isinstance(made, SmtpProvider)
        built.append(made)
        return made

    yield make
    for each in built:
        each.close()


# --- known answers ----------------------------------------------------------------------------------

GAME = b"""DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.

""".replace(b"\n", b"\r\n")
"""The example of RFC 8463, appendix A.3; its body is that of RFC 6376, appendix A."""
GAME_DNS = {
    "brisbane._domainkey.football.example.com": (
        "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    ),
    "test._domainkey.football.example.com": (
        "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR"
        "iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutAC"
        "DfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3"
        "Ip3G+2kryOTIKT+l/K4w3QIDAQAB"
    ),
}
GAME_SEED = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")


@pytest.mark.parametrize("which", [0, 1])
def test_our_verifier_takes_the_example_of_the_rfc_and_nothing_else(which: int) -> None:
    assert verify(GAME, GAME_DNS, which)["d"] == "football.example.com"
    with pytest.raises(Broken, match="body"):
        verify(GAME.replace(b"hungry", b"angry"), GAME_DNS, which)
    with pytest.raises(Broken, match="head"):
        verify(GAME.replace(b"dinner", b"lunch"), GAME_DNS, which)
    with pytest.raises(Broken, match="head"):
        verify(GAME.replace(b"From: Joe", b"From: Eve <eve@example.org>\r\nFrom: Joe"), GAME_DNS, which)


def test_our_signer_makes_the_signature_of_the_rfc() -> None:
    head, _, body = GAME.partition(b"\r\n\r\n")
    own, *fields = re.split(rb"\r\n(?! )", head)
    own, signature = own.split(b" b=")
    names = ["from", "to", "subject", "date", "message-id", "from", "subject", "date"]
    key = read_key(pem_of(ed25519.Ed25519PrivateKey.from_private_bytes(GAME_SEED)))

    made = key.sign(signed_data(fields[1:], names, own + b" b="))

    assert base64.b64encode(made) == re.sub(rb"\s", b"", signature)
    body_hash = base64.b64encode(hashlib.sha256(relaxed_body(body)).digest())
    assert body_hash == b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="


def test_canonical_forms_are_those_of_the_rfc() -> None:
    # RFC 6376, section 3.4.5
    assert relaxed_field(b"A: X") == b"a:X"
    assert relaxed_field(b"B : Y\t\r\n\tZ  ") == b"b:Y Z"
    assert relaxed_body(b" C \r\nD \t E\r\n\r\n\r\n") == b" C\r\nD E\r\n"
    # and section 3.4.4
    for nothing in (b"", b"\r\n", b" \t\r\n\r\n", b"\t"):
        digest = base64.b64encode(hashlib.sha256(relaxed_body(nothing)).digest())
        assert digest == b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert relaxed_body(b"no end") == b"no end\r\n"


def test_a_field_that_stands_there_twice_is_signed_from_the_bottom_up() -> None:
    # RFC 6376, section 5.4.2
    fields = [b"A: above", b"B: x", b"A: below"]
    assert signed_data(fields, ["a"], b"own:") == b"a:below\r\nown:"
    assert signed_data(fields, ["a", "A", "a", "c"], b"own:") == b"a:below\r\na:above\r\nown:"


# --- what arrives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [RSA, ED25519], ids=["rsa", "ed25519"])
def test_what_arrives_at_a_relay_is_signed(provider: Factory, pair: Pair) -> None:
    with real_relay() as relay:
        sender = provider(relay.port, reply_to="Help <help@example.com>", **pair.options())
        for content in CONTENTS.values():
            sender.send(mail(content), Deadline(10))

    assert len(relay.taken) == len(CONTENTS)
    for arrived, (name, content) in zip(relay.taken, CONTENTS.items(), strict=True):
        raw = arrived.content
        tags = verify(raw, pair.dns)
        assert raw.startswith(b"DKIM-Signature: "), name
        assert (tags["d"], tags["s"]) == ("example.com", "s1")
        assert raw.isascii()
        assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
        alone = content.html is None and not content.attachments
        assert tags["h"].split(":") == [
            *["From", "From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"],
            *(["Content-Transfer-Encoding"] if alone else []),
            "Reply-To",
            *(["List-Unsubscribe", "List-Unsubscribe-Post"] if content.unsubscribe else []),
        ], name
        long = [each for each in raw.split(b"\r\n") if len(each) > 78]
        assert all(each.startswith(b"List-Unsubscribe: <") and len(each) < 998 for each in long)


def test_a_signed_mail_is_the_unsigned_one_with_a_field_on_top() -> None:
    raw = composed(CONTENTS["attachment"])
    signed = Signer("example.com", "s1", read_key(RSA.pem)).sign(raw, 1_800_000_000)

    assert signed.endswith(raw)
    assert re.fullmatch(rb"DKIM-Signature: [^\r\n]+(\r\n [^\r\n]+)+\r\n", signed.removesuffix(raw))
    assert verify(signed, RSA.dns)["t"] == "1800000000"


def test_the_relay_is_told_the_size_with_the_signature(provider: Factory) -> None:
    with ScriptedRelay() as relay:
        provider(relay.port, **ED25519.options()).send(mail(), Deadline(10))
        relay.until(lambda: len(relay.mails) == 1)

    (command,) = [each for each in relay.conversations[0].commands if each.startswith("MAIL")]
    assert command.endswith(f" SIZE={len(relay.mails[0])}")
    verify(relay.mails[0], ED25519.dns)


def test_a_mail_to_an_address_beyond_ascii_is_signed_as_it_is(provider: Factory) -> None:
    with real_relay() as relay:
        provider(relay.port, **ED25519.options()).send(mail(address="zoë@customer.example"), Deadline(10))

    assert relay.taken[0].smtputf8
    assert "\r\nTo: zoë@customer.example\r\n".encode() in relay.taken[0].content
    verify(relay.taken[0].content, ED25519.dns)


def test_many_threads_sign_with_one_key(provider: Factory) -> None:
    with real_relay() as relay:
        sender = provider(relay.port, **RSA.options())
        with ThreadPoolExecutor(8) as threads:
            list(
                threads.map(
                    lambda n: sender.send(mail(replace(SHORT, subject=str(n))), Deadline(20)), range(32)
                )
            )

    assert len(relay.taken) == 32
    for each in relay.taken:
        verify(each.content, RSA.dns)


def test_nothing_that_is_signed_can_be_changed_or_added_to() -> None:
    signer = Signer("example.com", "s1", read_key(ED25519.pem))
    content = replace(CONTENTS["text alone"], unsubscribe=URL)
    raw = signer.sign(composed(content, "help@example.com"), 1_800_000_000)
    names = verify(raw, ED25519.dns)["h"].split(":")

    assert len(set(names)) == 11
    for name in set(names):
        changed = re.sub(rf"\r\n{name}: ".encode(), rf"\r\n{name}: x".encode(), raw)
        assert changed != raw
        with pytest.raises(Broken, match="head"):
            verify(changed, ED25519.dns)
    for place in (b"\r\nFrom: ", b"\r\nTo: ", b"\r\nMIME-Version: "):
        second = raw.replace(place, b"\r\nFrom: Eve <eve@evil.example>" + place)
        with pytest.raises(Broken, match="head"):
            verify(second, ED25519.dns)
    with pytest.raises(Broken, match="body"):
        verify(raw.replace(b"left", b"lost"), ED25519.dns)
    with pytest.raises(Broken, match="head"):
        verify(raw.replace(b"t=1800000000", b"t=1800000001"), ED25519.dns)


def test_what_relays_do_to_spaces_and_folds_breaks_no_signature() -> None:
    signer = Signer("example.com", "s1", read_key(ED25519.pem))
    raw = signer.sign(composed(CONTENTS["long subject"]), 1_800_000_000)

    head, _, body = raw.partition(b"\r\n\r\n")
    head = head.replace(b"\r\n ", b"\r\n\t  ").replace(b"\r\nTo: ", b"\r\nTO:\r\n ")
    carried = b"Received: by relay.example\r\n" + head + b"\r\n\r\n" + body + b"\r\n\r\n"

    verify(carried, ED25519.dns)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \t\r\n.=")) | st.text(" \t\r\n.")
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from(" \t=?"))


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.none() | TEXTS, LINES, st.lists(st.binary(max_size=200), max_size=2))
def test_whatever_a_mail_says_it_verifies(
    text: str, html: str | None, subject: str, files: list[bytes]
) -> None:
    attachments = tuple(Attachment("a.bin", "application/octet-stream", each) for each in files)
    raw = composed(EmailContent(subject, text, html, attachments))

    signed = Signer("example.com", "s1", read_key(ED25519.pem)).sign(raw, 1_800_000_000)

    verify(signed, ED25519.dns)
    assert signed.isascii()
    assert signed.count(b"\r") == signed.count(b"\n") == signed.count(b"\r\n")


def test_without_the_options_nothing_is_signed_and_no_cryptography_loaded(provider: Factory) -> None:
    with real_relay() as relay:
        provider(relay.port).send(mail(), Deadline(10))
    assert b"dkim" not in relay.taken[0].content.lower()

    options = {"url": "smtp+plain://127.0.0.1:9", "sender": "shop@example.com"}
    code = (
        "import sys; from channels.loader import load;"
        f"load('email.smtp', 'a', {options!r}); print('cryptography' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout == "False\n"


# --- options ----------------------------------------------------------------------------------------


def wrong(provider: Factory, **changes: Any) -> str:
    options = {key: value for key, value in {**ED25519.options(), **changes}.items() if value is not None}
    with pytest.raises(Misconfigured) as caught:
        provider(9, **options)
    told = "".join(traceback.format_exception(caught.value)) + dump(caught.value)
    for pem in (ED25519.pem, str(changes.get("dkim_key"))):
        for line in pem.split("\n")[1:-2]:
            assert line not in told
    return caught.value.detail


@pytest.mark.parametrize("absent", ["dkim_domain", "dkim_selector", "dkim_key"])
def test_all_options_are_there_or_none(provider: Factory, absent: str) -> None:
    told = wrong(provider, **{absent: None})
    assert told == (
        f"smtp-main: {absent} is missing; write all of dkim_domain, dkim_selector, dkim_key, or none of them"
    )


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("dkim_domain", "exa mple.com", "dkim_domain must be a domain, such as mail.example.com"),
        ("dkim_domain", "example.com; l=0", "dkim_domain must be a domain, such as mail.example.com"),
        ("dkim_domain", "", "dkim_domain must be a text that is not empty"),
        (
            "dkim_selector",
            "s1;d=x",
            "dkim_selector must be the first part of its DNS record's name, such as s1",
        ),
        ("dkim_selector", "s1\r\nBcc: x", "dkim_selector must be the first part"),
        ("dkim_selector", "größe", "dkim_selector must be the first part"),
        ("dkim_selector", ".".join(["a" * 60] * 4), "dkim_selector is too long for a name in the DNS"),
        ("dkim_selector", 1, "dkim_selector must be a text that is not empty"),
        ("dkim_key", ["x"], "dkim_key must be a text that is not empty"),
        ("dkim_key", "env:DKIM_KEY", "dkim_key is no private key in PEM; give the file with its line breaks"),
        ("dkim_key", RSA.pem.replace("\n", "\\n"), "dkim_key is no private key in PEM"),
        ("dkim_key", RSA.pem[: len(RSA.pem) // 2], "dkim_key is no private key in PEM"),
        ("dkim_key", RSA.pem + "\ud800", "dkim_key is no private key in PEM"),
    ],
)
def test_a_wrong_option_is_named_with_its_remedy(
    provider: Factory, option: str, value: object, told: str
) -> None:
    assert wrong(provider, **{option: value}).startswith(f"smtp-main: {told}")


def test_a_key_of_another_kind_is_named_with_its_remedy(provider: Factory) -> None:
    short, long = (pem_of(rsa.generate_private_key(65537, bits)) for bits in (1024, 4098))
    curve = pem_of(ec.generate_private_key(ec.SECP256R1()))
    locked = pem_of(ed25519.Ed25519PrivateKey.generate(), b"passphrase")

    assert "is an RSA key of 1024 bits; make one of 2048 to 4096 with openssl" in wrong(
        provider, dkim_key=short
    )
    assert "is an RSA key of 4098 bits; make one of 2048 to 4096 with" in wrong(provider, dkim_key=long)
    assert "is a key of neither RSA nor Ed25519; make one with openssl" in wrong(provider, dkim_key=curve)
    assert "has a passphrase; take it off with openssl pkey" in wrong(provider, dkim_key=locked)


def test_without_its_package_the_option_says_what_to_install(
    provider: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)  # as Python sees a package that is not there
    assert "dkim_key needs the package cryptography; type pip install" in wrong(provider)


def test_a_domain_beyond_ascii_signs_as_the_dns_has_it(provider: Factory) -> None:
    dns = {"s1._domainkey.xn--bcher-kva.example": next(iter(ED25519.dns.values()))}
    with real_relay() as relay:
        options = {**ED25519.options(), "dkim_domain": "bücher.example"}
        provider(relay.port, **options).send(mail(), Deadline(10))

    assert verify(relay.taken[0].content, dns)["d"] == "xn--bcher-kva.example"


@pytest.mark.parametrize("pair", [RSA, ED25519], ids=["rsa", "ed25519"])
def test_the_key_is_shown_nowhere(provider: Factory, pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    with real_relay() as relay, caplog.at_level("DEBUG"):
        sender = provider(relay.port, **pair.options())
        sender.send(mail(), Deadline(10))
        shown = dump(sender) + caplog.text + relay.taken[0].content.decode()

    assert "s1" in shown
    for line in pair.pem.strip().split("\n")[1:-1]:
        assert line not in shown
    assert "PRIVATE KEY" not in shown
