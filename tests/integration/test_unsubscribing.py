"""Links to unsubscribe: in mails, at the gateway over its socket, and for whoever holds a false one."""

from __future__ import annotations

import base64
import http.client
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.ports import free_port

from channels.contract import EmailContent
from notify_tasks import people, preferences, settings
from notify_tasks.composing import compose
from notify_tasks.rendering import Catalog
from notify_tasks.store.deliveries import Claimed
from notify_tasks.stored_files import StoredFiles
from notify_tasks.unsubscribing import MAX_URL, Link, Links
from tests.integration.core_world import until

KEY, OLD = Fernet.generate_key().decode(), Fernet.generate_key().decode()
PUBLIC = "https://notify.example.com"
ANN = Link("default", "canary-ann", "news", "email")
LINKS = Links(KEY, PUBLIC)
ONE_CLICK = b"List-Unsubscribe=One-Click"
CONFIG = """
[providers.mails]
use = "email.smtp"
url = "smtp+plain://127.0.0.1:2525"
sender = "shop@example.com"
[channels.email]
pool = ["mails"]
"""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def token(link: Link = ANN, links: Links = LINKS) -> str:
    url = links.url(link)
    assert url is not None
    return url.removeprefix(f"{PUBLIC}/u/")


# --- tokens -------------------------------------------------------------------------------------------


def test_a_token_says_nothing_to_others_and_everything_to_us() -> None:
    made = token()
    assert re.fullmatch(r"[A-Za-z0-9_-]+", made)
    assert b"canary" not in base64.urlsafe_b64decode(made + "=" * (-len(made) % 4))
    assert LINKS.read(made) == ANN
    assert "canary" not in repr(ANN) + repr(LINKS)


def test_a_key_that_was_changed_still_reads_and_one_that_is_gone_does_not() -> None:
    before = token(links=Links(OLD, PUBLIC))
    assert Links(f"{KEY} {OLD}", PUBLIC).read(before) == ANN
    assert LINKS.read(before) is None


def test_what_is_encrypted_under_the_key_for_another_purpose_is_no_token() -> None:
    stored = Fernet(KEY).encrypt(b'["default","canary-ann","news","email"]').decode()
    assert LINKS.read(stored.rstrip("=")) is None


def test_a_link_that_fits_into_no_header_is_not_made() -> None:
    assert LINKS.url(Link("default", "\N{PARTY POPPER}" * 200, "news", "email")) is None
    longest = LINKS.url(Link("default", "x" * 200, "news", "email"))
    assert longest is not None
    assert len(longest) <= MAX_URL
    assert Links(KEY, None).url(ANN) is None


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.sampled_from("AZaz09-_"))
def test_a_token_that_was_changed_is_none(place: int, letter: str) -> None:
    made = token()
    changed = made[:place] + letter + made[place + 1 :]
    assert LINKS.read(changed) == (ANN if changed == made else None)


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_whatever_comes_instead_of_a_token_is_none(text: str) -> None:
    assert LINKS.read(text) is None


# --- mails --------------------------------------------------------------------------------------------


def claimed(recipient_id: str | None = "canary-ann") -> Claimed:
    return Claimed(
        id=uuid4(), token=uuid4(), fence=1, notification_id=uuid4(), tenant="default", message_id="m",
        event_type="shop.news", recipient_id=recipient_id, channel="email", lane="normal", locale=None,
        timezone=None, attempts=1, max_attempts=8, unknown=0, unknown_age=0.0, lifetime=60.0, provider="p",
        on_doubt="resend", sandbox=False, address="ann@example.com", payload={},
    )  # fmt: skip


def mail(
    root: Path, policy: str, links: Links | None = LINKS, who: str | None = "canary-ann"
) -> EmailContent:
    folder = root / "shop.news"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notification.toml").write_text(f'channels = ["email"]\ncategory = "news"\n{policy}')
    (folder / "email.subject.txt").write_text("News")
    (folder / "email.txt").write_text(
        "News.{% if unsubscribe_url %} No more: {{ unsubscribe_url }}{% endif %}"
    )
    content, _ = compose(Catalog(root), claimed(who), dict, StoredFiles(None), links)
    assert isinstance(content, EmailContent)
    return content


def test_a_mail_of_a_type_that_says_so_carries_its_persons_link(tmp_path: Path) -> None:
    made = mail(tmp_path, "unsubscribe = true")
    assert made.unsubscribe is not None
    assert made.unsubscribe.startswith(f"{PUBLIC}/u/")
    assert LINKS.read(made.unsubscribe.removeprefix(f"{PUBLIC}/u/")) == ANN
    assert f"No more: {made.unsubscribe}" in made.text


def test_others_carry_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert mail(tmp_path / "a", "").unsubscribe is None
    assert mail(tmp_path / "b", "unsubscribe = true", who=None).unsubscribe is None
    assert "carry no link" not in caplog.text

    bare = mail(tmp_path / "c", "unsubscribe = true", links=None)
    assert (bare.unsubscribe, bare.text.strip()) == (None, "News.")
    assert "NOTIFY_PUBLIC_URL" in caplog.text


# --- the door -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    """What the gateway said."""

    status: int
    headers: dict[str, str]
    text: str


@dataclass(slots=True)
class Door:
    """A gateway on a port."""

    port: int
    log: Path

    def ask(self, method: str, made: str, body: bytes | None = None, language: str = "") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, f"/u/{made}", body, FORM | {"Accept-Language": language})
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, got, response.read().decode())
        finally:
            connection.close()


@contextmanager
def gateway(tmp_path: Path, database: str, broker: str) -> Iterator[Door]:
    port, log = free_port(), tmp_path / "gateway.log"
    environment = os.environ | {
        "NOTIFY_DATABASE_URL": database,
        "NOTIFY_BROKER_URL": broker,
        "NOTIFY_SECRET_KEY": f"{KEY} {OLD}",
        "NOTIFY_PUBLIC_URL": PUBLIC,
        "NOTIFY_CONFIG": str(tmp_path / "notify.toml"),
    }
    (tmp_path / "notify.toml").write_text(CONFIG)
    program = "import sys; from notify_tasks.cli import main; sys.exit(main())"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "gateway", "--port", str(port), "--host", "127.0.0.1"],
            cwd=tmp_path, env=environment, stdout=written, stderr=written,
        )  # fmt: skip
    try:
        until(lambda: "ready:" in log.read_text() or process.poll() is not None, "the gateway is up", 30)
        assert process.poll() is None, log.read_text()
        yield Door(port, log)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def door(tmp_path: Path, database: str, broker: str) -> Iterator[Door]:
    settings.configure(database_url=database)
    people.upsert("canary-ann", email="ann@example.com")
    with gateway(tmp_path, database, broker) as opened:
        yield opened
    people.close()
    settings.reset()


def chosen() -> dict[str, dict[str, str]]:
    found = preferences.get("canary-ann")
    assert found is not None
    return dict(found.settings.get("categories", {}))


def test_a_link_unsubscribes_by_post_alone_and_takes_it_back(door: Door) -> None:
    # Given a link in a mail: a scanner that follows it changes nothing,
    for method in ("GET", "HEAD"):
        seen = door.ask(method, token())
        assert (seen.status, chosen()) == (200, {})
    page = door.ask("GET", token())
    assert '<button name="choice" value="off"' in page.text
    assert "canary" not in page.text
    assert "set-cookie" not in page.headers
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"

    # what changes nothing known changes nothing,
    assert door.ask("POST", token(), b"choice=perhaps").status == 200
    assert chosen() == {}

    # one POST of a mail service switches it off, as a form or in parts, as often as it likes,
    parts = b'--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--x--\r\n'
    for body in (parts, ONE_CLICK, ONE_CLICK):
        answer = door.ask("POST", token(), body)
        assert answer.status == 200
        assert chosen() == {"news": {"email": "off"}}
    assert [(it.version, it.changed_by) for it in preferences.history("canary-ann")] == [
        (1, "link to unsubscribe")
    ]

    # and the page says so, and takes it back.
    assert '<button name="choice" value="on"' in door.ask("GET", token()).text
    assert "Unsubscribe?" in door.ask("POST", token(), b"choice=on").text
    assert chosen() == {"news": {"email": "on"}}

    # Other choices stay; a link under the key before works, too.
    preferences.update("canary-ann", categories={"orders": {"sms": "off"}})
    assert door.ask("POST", token(links=Links(OLD, PUBLIC)), b"choice=off").status == 200
    assert chosen() == {"news": {"email": "off"}, "orders": {"sms": "off"}}

    # The page speaks the reader's language.
    spoken = {"de-AT,en;q=0.5": "Sie sind abgemeldet", "zh-CN": "已退订", "fr": "You are unsubscribed"}
    for accepted, words in spoken.items():
        assert words in door.ask("GET", token(), language=accepted).text

    # A false link learns nothing, and neither does one of somebody who was erased.
    false = [door.ask("POST", made, ONE_CLICK) for made in ("x", token()[:-2] + "AA", token() + "A" * 9000)]
    assert {it.status for it in false} == {404}
    assert len({it.text for it in false}) == 1
    people.erase("canary-ann")
    assert door.ask("POST", token(), ONE_CLICK).status == 200
    assert preferences.get("canary-ann") is None

    # Nothing of it is in the log.
    assert not re.search(r"canary|/u/|gAAAA", door.log.read_text())
