"""Reads a provider's options, one at a time, and refuses what is wrong with them or what nobody reads.

Each refusal is a `Misconfigured` that names the provider, the option and what to write::

    given = Options("sms.acme", name, options, known=("sender", "token"))
    sender = given.text("sender", write='sender = "Shop"')
    token = given.secret("token")
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from channels._options import refuse_unknown, wrong_option
from channels.contract import Misconfigured

_ENV: Final = "env:"


class Secret:
    """A text that no repr, dump of `vars`, pickle or log line shows. `reveal` it where it is used.

    Args:
        text: the secret.
    """

    __slots__ = ("_reveal",)

    def __init__(self, text: str) -> None:
        self._reveal: Callable[[], str] = lambda: text  # a dump of attributes does not look into a closure

    def reveal(self) -> str:
        """The secret itself. Do not keep it in an attribute."""
        return self._reveal()

    def __repr__(self) -> str:
        return "Secret(****)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled; read it from the options in each process")


class Options:
    """The options of one configured provider.

    Args:
        use: the provider's name: `sms.acme`.
        name: its name in the configuration, which every sentence begins with.
        options: its table of the configuration, with secrets already read.
        known: every option that there is.

    Raises:
        Misconfigured: there is an option that is not known; the nearest known one is given.
    """

    def __init__(self, use: str, name: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
        self._name = name
        self._options = options
        refuse_unknown(name, use, options, known)

    def __repr__(self) -> str:
        return f"Options({self._name!r})"

    def wrong(self, option: str, sentence: str) -> Misconfigured:
        """What to raise about an option: the sentence says what is wrong, and what to write."""
        return wrong_option(self._name, option, sentence)

    # --- texts --------------------------------------------------------------------------------------

    def text(self, option: str, *, write: str) -> str:
        """A text that must be there; `write` is the example that its absence is answered with."""
        found = self.optional_text(option)
        if found is None:
            raise self.wrong(option, f"is missing; write {write}")
        return found

    def optional_text(self, option: str) -> str | None:
        """A text, or None where the option is missing."""
        value = self._options.get(option)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise self.wrong(option, "is no text, or empty; write one, or leave it out")
        return value

    def texts(self, option: str) -> tuple[str, ...]:
        """A list of texts; empty where the option is missing."""
        value = self._options.get(option, ())
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each for each in value):
            raise self.wrong(option, f'is no list of texts; write {option} = ["..."]')
        return tuple(value)

    def choice(self, option: str, choices: Iterable[str], default: str) -> str:
        """One of some words."""
        value = self._options.get(option, default)
        words = tuple(choices)
        if value not in words:
            raise self.wrong(option, f"is none of its words; write one of {', '.join(words)}")
        return str(value)

    # --- secrets ------------------------------------------------------------------------------------

    def secret(self, option: str) -> Secret:
        """A secret that must be there, fit to stand in a header."""
        found = self.optional_secret(option)
        if found is None:
            raise self.wrong(option, f'is missing; write {option} = "env:NAME", and set the variable NAME')
        return found

    def optional_secret(self, option: str) -> Secret | None:
        """A secret fit to stand in a header, or None where the option is missing."""
        text = self.optional_text(option)
        return None if text is None else self._checked(option, text)

    def secret_document(self, option: str) -> Secret:
        """A secret of many lines that must be there: a PEM key, the JSON of a service account."""
        text = self.text(option, write=f'{option} = "env:NAME", and set NAME, or NAME_FILE to a path')
        return Secret(text)

    def secrets(self, option: str) -> tuple[Secret, ...]:
        """One secret or several that must be there: a list, or one text with spaces between them."""
        value = self._options.get(option)
        texts = value.split() if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not texts:
            raise self.wrong(option, f'is missing; write {option} = ["env:NAME"], and set the variable NAME')
        return tuple(self._checked(f"{option}[{place}]", each) for place, each in enumerate(texts))

    def _checked(self, option: str, value: object) -> Secret:
        if isinstance(value, str) and value.startswith(_ENV):
            raise self.wrong(
                option,
                "was not read from the environment; write one text, with spaces between several secrets",
            )
        if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*", value):
            raise self.wrong(
                option, "has characters that no header carries; look for a line break at its end"
            )
        return Secret(value)

    # --- numbers and switches -----------------------------------------------------------------------

    def whole(self, option: str, default: int, *, least: int = 1, most: int | None = None) -> int:
        """A whole number from `least` to `most`."""
        value = self._options.get(option, default)
        sound = isinstance(value, int) and not isinstance(value, bool)
        if not sound or value < least or (most is not None and value > most):
            bounds = f"{least} or more" if most is None else f"from {least} to {most}"
            raise self.wrong(option, f"is no whole number that fits; write {bounds}")
        return int(value)

    def flag(self, option: str) -> bool:
        """A switch that is off where the option is missing."""
        value = self._options.get(option, False)
        if not isinstance(value, bool):
            raise self.wrong(option, "is no switch; write true or false")
        return value

    def ports(self, option: str, default: tuple[int, ...]) -> tuple[int, ...] | None:
        """A list of TCP ports, or None for the word `any`."""
        value = self._options.get(option, default)
        if value == "any":
            return None
        numbers = isinstance(value, list | tuple) and all(
            isinstance(each, int) and not isinstance(each, bool) and 0 < each < 65536  # noqa: PLR2004 - TCP
            for each in value
        )
        if not numbers:
            raise self.wrong(option, f'is no list of ports; write {option} = [443, 8443], or "any"')
        return tuple(value)

    def networks(self, option: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """A list of networks in CIDR notation; empty where the option is missing."""
        try:
            return tuple(ipaddress.ip_network(each) for each in self.texts(option))
        except ValueError:
            sentence = f'is no list of networks; write {option} = ["10.1.0.0/16"]'
        raise self.wrong(option, sentence)

    # --- addresses of servers -----------------------------------------------------------------------

    def origin(self, option: str, default: str) -> str:
        """The `https://HOST[:PORT]` of an API. `http://` is for this machine alone: keys travel in it."""
        url = self.optional_text(option) or default
        host = _bare_host(url, "https") or _bare_host(url, "http")
        if host is None:
            raise self.wrong(
                option, "is not the address of a server; write https://HOST or https://HOST:PORT"
            )
        if url.startswith("http://") and not _is_this_machine(host):
            raise self.wrong(option, "may be http:// for this machine alone; write https://")
        return url.rstrip("/")

    def ca_file(self, option: str) -> str | None:
        """The path of a PEM file with certificates, None where the option is missing."""
        path = self.optional_text(option)
        try:
            if path is not None:
                ssl.create_default_context(cafile=path)
        except OSError:  # ssl.SSLError is one too
            path = ""
        if path == "":
            raise self.wrong(option, "cannot be read as PEM certificates; check the path")
        return path

    def proxy(self, option: str) -> Secret | None:
        """The `http://[user:password@]HOST:PORT` of a proxy, None where the option is missing."""
        found = self.optional_secret(option)
        if found is not None and _bare_host(found.reveal(), "http", login=True) is None:
            raise self.wrong(option, "is no proxy; write http://HOST:PORT or http://user:password@HOST:PORT")
        return found


def _bare_host(url: str, scheme: str, *, login: bool = False) -> str | None:
    """The host of a URL that has a scheme, a host and perhaps a port, and nothing more."""
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    bare = parts._replace(scheme="", netloc="").geturl() in {"", "/"}
    clean = re.fullmatch(r"[\x21-\x7e]+", url) is not None and (login or "@" not in parts.netloc)
    return parts.hostname if sound and bare and clean and parts.scheme == scheme else None


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
