"""`sms.http`: SMS by a gateway that is described in the configuration.

For the many gateways that take one HTTP request for one SMS, and answer with a status or with JSON::

    [providers.sms-acme]
    use = "sms.http"
    url = "https://gateway.acme.example"
    path = "/v2/messages"
    body = { to = "{to}", text = "{text}", reference = "{id}", sender = "Shop" }
    headers = { Authorization = "Bearer {token}" }
    secrets = { token = "env:ACME_TOKEN" }
    id = "messages.0.id"                # where the answer has its id
    code = "messages.0.status"          # and its code, if it has one: it may be an error in a 200
    success_codes = ["0"]
    errors = { "6" = "address-invalid", "9" = "misconfigured", "1" = "throttled" }
    statuses = { "402" = "misconfigured" }

| place in path, body and headers | is |
|---|---|
| `{to}`, `{to_digits}` | the number in E.164, with and without its plus |
| `{text}` | the text |
| `{id}` | our delivery's id, for what the gateway repeats in its receipts |
| `{key}` | the idempotency key: the same for every repetition of a request |
| `{NAME}` | the secret of that name in `secrets` |

Where a key of body or headers is named like a secret (`api_key`), the configuration wants all of its value from
the environment: `body = { api_key = "env:ACME_KEY" }` does that, too.

| the gateway | outcome |
|---|---|
| a status of `success` (any 2xx), and a code of `success_codes` where `code` says where one is | Accepted |
| a code of `errors` | as that says |
| 2xx, with any other code | Refused, with that code |
| 2xx, and there is no code to be read where `code` wants one | Uncertain |
| 2xx, but none of `success` | Uncertain |
| a status of `statuses` | as that says |
| any other status | as `channels.http` reads it: 401 Misconfigured, 429 Throttled, 503 Unavailable, other 4xx Refused |
| 500, 502, 504; no answer; a lost connection | Uncertain; with `idempotent` the first three are TryLater |

With the option `receipts` the gateway reports what became of its messages: `channels.sms._gateway_receipts` says how.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

from channels._http_outcomes import identifier
from channels.contract import (
    Accepted,
    Capability,
    ChannelError,
    Deadline,
    Message,
    Refused,
    Uncertain,
)
from channels.http import CLIENT_OPTIONS, Answer, Client, Meaning, Options, Secret, to_json
from channels.receipts import Event, Forged, Receipt, Unreadable
from channels.sms._gateway import OURS, Template, at, compiled, filled, read_meanings, read_path, used
from channels.sms._gateway_receipts import Reports, read_reports
from channels.sms._text import MAX_SEGMENTS, checked_text, number_of

MAX_TEXT: Final = 1600
"""Characters of a text, where the option `max_text` says nothing."""
_TYPES: Final = {"json": "application/json", "form": "application/x-www-form-urlencoded"}
_NOT_YOURS: Final = frozenset(
    {"accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding"}
)
_EXAMPLE: Final = 'write body = { to = "{to}", text = "{text}" }'


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a request looks like.

    Args:
        method: of the request.
        path: its path and query.
        body: a tree of templates; None where there is none.
        kind: `json` or `form`.
        headers: templates by name.
        secrets: by the name under which templates use them.
        login: user and password of HTTP's own login.
    """

    method: str
    path: Template
    body: Any
    kind: str
    headers: Mapping[str, Template]
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    login: Secret | None = None

    def uses(self) -> frozenset[str]:
        """Every place that is used somewhere."""
        trees = (self.body, dict(self.headers))
        return self.path.uses.union(*(used(each) for each in trees))


@dataclass(frozen=True, slots=True)
class _Answers:
    """What an answer means.

    Args:
        success: statuses of a yes; none named: any 2xx.
        id: path to the gateway's id.
        code: path to its code; None where the status says all.
        success_codes: codes of a yes.
        errors: what other codes mean.
        statuses: what statuses mean that mean something else here.
    """

    success: frozenset[int]
    id: str | None
    code: str | None
    success_codes: frozenset[str]
    errors: Mapping[str, Meaning]
    statuses: Mapping[int, Meaning]


def build(name: str, options: Mapping[str, Any]) -> Gateway:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `url` (`https://HOST[:PORT]`) and `path`, required. `method`: POST (the default), PUT or GET.
            `body`: a table, of which each text is a template; `format`: `json` (the default) or `form`.
            `headers`: a table of templates. `secrets`: a table of what templates may name. `basic_auth`:
            `user:password`. `idempotent`: whether the gateway takes a `{key}` once. `success`: the statuses
            of a yes. `id`, `code`: paths into a JSON answer. `success_codes`, `errors`, `statuses`: what
            codes and statuses mean. `max_text`: characters of a text (1600). `max_segments`: SMS that one
            text may make (10). `receipts`: a table (see `channels.sms._gateway_receipts`). And those of
            `channels.http.CLIENT_OPTIONS`.

    Raises:
        Misconfigured: an option is missing, wrong or unknown.
    """
    known = (
        *CLIENT_OPTIONS,
        *("path", "method", "body", "format", "headers", "secrets", "basic_auth", "idempotent"),
        *("success", "id", "code", "success_codes", "errors", "statuses", "max_text", "max_segments"),
        "receipts",
    )
    given = Options("sms.http", name, options, known)
    url = given.text("url", write='url = "https://gateway.example"')
    shape = _shape(given, options)
    idempotent = given.flag("idempotent")
    if idempotent and "key" not in shape.uses():
        raise given.wrong("idempotent", "needs the place {key}; write it into body, headers or path")
    return Gateway(
        name,
        Client.read(given, url),
        shape,
        _answers(given, options),
        read_reports(name, options.get("receipts")),
        capability=Capability.IDEMPOTENT if idempotent else Capability.OPAQUE,
        max_text=given.whole("max_text", MAX_TEXT),
        max_segments=given.whole("max_segments", MAX_SEGMENTS),
    )


def _shape(given: Options, options: Mapping[str, Any]) -> _Shape:
    secrets = _secrets(given, options.get("secrets", {}))
    names = frozenset({*OURS, *secrets})
    path = given.text("path", write='path = "/v1/messages"')
    if not re.fullmatch(r"/[\x21-\x7e]*", path) or "#" in path:
        raise given.wrong(
            "path", "is no path of a request; begin it with / and percent-encode what is not ASCII"
        )
    shape = _Shape(
        given.choice("method", ("POST", "PUT", "GET"), "POST"),
        Template(given, "path", path, names),
        _body(given, options.get("body"), names),
        given.choice("format", _TYPES, "json"),
        _headers(given, options.get("headers", {}), names - {"text"}),
        secrets,
        given.optional_secret("basic_auth"),
    )
    sent = frozenset(used(shape.body)) | shape.path.uses
    if not sent & {"to", "to_digits"} or "text" not in sent:
        raise given.wrong("body", f"and path lack the number or the text; {_EXAMPLE}")
    if shape.method == "GET" and shape.body is not None:
        raise given.wrong("body", 'does not go with GET; put the places into path, or write method = "POST"')
    if shape.kind == "form" and any(isinstance(each, dict | list) for each in (shape.body or {}).values()):
        raise given.wrong("body", "has a table or a list inside, which no form carries; make it flat")
    if shape.login is not None and "authorization" in {each.lower() for each in shape.headers}:
        raise given.wrong("basic_auth", "is one login too many beside headers.Authorization; leave one out")
    if unused := sorted(secrets.keys() - shape.uses()):
        raise given.wrong(
            "secrets", f"has {unused[0]}, which is used nowhere; write {{{unused[0]}}} where it goes"
        )
    return shape


def _secrets(given: Options, table: object) -> dict[str, Secret]:
    write = 'write secrets = { token = "env:NAME" }, and {token} where it goes'
    if not isinstance(table, Mapping):
        raise given.wrong("secrets", f"is no table; {write}")
    for name, value in table.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,40}", str(name)) or name in OURS:
            raise given.wrong("secrets", f"has a name that no place can have; {write}")
        if not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e]+", value):
            raise given.wrong("secrets", f"has no text of printable ASCII for {name}; look for a line break")
    return {name: Secret(value) for name, value in table.items()}


def _body(given: Options, value: object, names: frozenset[str]) -> Any:
    if value is not None and (not isinstance(value, Mapping) or not value):
        raise given.wrong("body", f"is no table; {_EXAMPLE}")
    return compiled(given, "body", value, names)


def _headers(given: Options, table: object, names: frozenset[str]) -> dict[str, Template]:
    write = 'write headers = { Authorization = "Bearer {token}" }'
    if not isinstance(table, Mapping) or not all(isinstance(each, str) for each in table.values()):
        raise given.wrong("headers", f"is no table of texts; {write}")
    for name, value in table.items():
        if not re.fullmatch(r"[A-Za-z0-9-]{1,60}", str(name)) or str(name).lower() in _NOT_YOURS:
            raise given.wrong("headers", f"has a name that is none, or that is set for it; {write}")
        if not re.fullmatch(r"[\x20-\x7e]*", value):
            raise given.wrong("headers", f"has characters that no header carries in {name}; {write}")
    return {str(name): Template(given, "headers", value, names) for name, value in table.items()}


def _answers(given: Options, options: Mapping[str, Any]) -> _Answers:
    success = options.get("success", [])
    if not isinstance(success, list) or not all(
        isinstance(each, int) and not isinstance(each, bool) and 200 <= each < 300  # noqa: PLR2004 - RFC 9110
        for each in success
    ):
        raise given.wrong("success", "is no list of statuses of a yes; write success = [200, 201]")
    statuses = read_meanings(given, "statuses", options.get("statuses", {}))
    if not all(re.fullmatch(r"[345][0-9]{2}", each) for each in statuses):
        raise given.wrong(
            "statuses", 'has a key that is no status of a no; write { "402" = "misconfigured" }'
        )
    code = read_path(given, "code")
    success_codes = given.texts("success_codes")
    if code is not None and not success_codes:
        raise given.wrong("success_codes", 'is missing beside code; write success_codes = ["0"]')
    if code is None and (success_codes or options.get("errors")):
        raise given.wrong("code", 'is missing; write where the answer has its code, such as code = "status"')
    errors = read_meanings(given, "errors", options.get("errors", {}))
    if both := sorted(set(success_codes) & errors.keys()):
        raise given.wrong("errors", f"has {both[0]}, which is one of success_codes too; leave it out of one")
    return _Answers(
        frozenset(success),
        read_path(given, "id"),
        code,
        frozenset(success_codes),
        errors,
        {int(each): meaning for each, meaning in statuses.items()},
    )


class Gateway:
    """Sends one SMS in one request. Made by `build`.

    Args:
        name: of the provider in the configuration.
        client: carries the requests.
        shape: of a request.
        answers: what they mean.
        reports: how it reports; None where it does not.
        capability: whether the gateway takes a key once.
        max_text: characters of a text.
        max_segments: SMS that one text may make.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        shape: _Shape,
        answers: _Answers,
        reports: Reports | None,
        *,
        capability: Capability,
        max_text: int,
        max_segments: int,
    ) -> None:
        self._name = name
        self._client = client
        self._shape = shape
        self._answers = answers
        self._reports = reports
        self._max_text = max_text
        self._max_segments = max_segments
        self.capability = capability

    def __repr__(self) -> str:
        return f"<sms.http {self._name!r}>"

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one SMS to the gateway. See `Provider.send`; the module has the table."""
        text = checked_text(message, most=self._max_text, most_segments=self._max_segments)
        number = number_of(message)
        shape = self._shape
        values = {
            **{name: secret.reveal() for name, secret in shape.secrets.items()},
            "to": number,
            "to_digits": number[1:],
            "text": text,
            "id": message.delivery_id,
            "key": message.idempotency_key,
        }
        answer = self._client.request(
            shape.method,
            shape.path.fill(values, lambda value: quote(value, safe="")),
            deadline,
            headers=_filled_headers(shape, values),
            body=_filled_body(shape, values),
        )
        failure = self._failure(answer)
        if failure is not None:
            raise failure
        found = identifier(at(answer, self._answers.id))
        wanted = found is not None or self._answers.id is None
        return Accepted(found, str(answer.status) if wanted else f"{answer.status} unreadable")

    def verify(self, receipt: Receipt) -> None:
        """See `channels.receipts.Reporting`."""
        if self._reports is None:
            raise Forged("unconfigured", "the option receipts is missing; describe what the gateway reports")
        self._reports.verify(receipt)

    def events(self, receipt: Receipt) -> Sequence[Event]:
        """See `channels.receipts.Reporting`."""
        if self._reports is None:
            raise Unreadable("the option receipts is missing; describe what the gateway reports")
        return self._reports.events(receipt)

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _failure(self, answer: Answer) -> ChannelError | None:
        answers = self._answers
        code = _code(at(answer, answers.code))
        known = answer.refusal(code, answers.errors)
        if known is not None:
            return known
        failure = answer.failure(self.capability, answers.statuses)
        if failure is not None:
            return (
                failure if not code else type(failure)(code, failure.detail, retry_after=failure.retry_after)
            )
        status = str(answer.status)
        if answers.success and answer.status not in answers.success:
            return Uncertain(status, "the gateway's status is none of the option success")
        if answers.code is None or code in answers.success_codes:
            return None
        if not code:
            return Uncertain(status, "the gateway's answer has no code where the option code looks for it")
        return Refused(code, "the gateway's code is none of the options success_codes and errors")


def _filled_headers(shape: _Shape, values: Mapping[str, str]) -> dict[str, str]:
    headers = {name: template.fill(values) for name, template in shape.headers.items()}
    if shape.login is not None:
        login = base64.b64encode(shape.login.reveal().encode()).decode("ascii")
        headers["Authorization"] = f"Basic {login}"
    if shape.body is not None:
        headers["Content-Type"] = _TYPES[shape.kind]
    return headers


def _filled_body(shape: _Shape, values: Mapping[str, str]) -> bytes | None:
    if shape.body is None:
        return None
    made = filled(shape.body, values)
    if shape.kind == "json":
        return to_json(made, where="content.text")
    plain = {name: str(each).lower() if isinstance(each, bool) else each for name, each in made.items()}
    return urlencode(plain).encode("ascii")


def _code(value: object) -> str:
    """A gateway's code, fit to be kept; empty where there is none. A long number might be a person's."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value) if re.fullmatch(r"-?[0-9]{1,5}|[A-Za-z][\w.-]{0,60}", str(value)) else ""
