"""`chat.teams`: an adaptive card to a workflow of Microsoft Teams that posts it into a channel or a chat.

An address is the name of a room, and each room has the URL of a workflow with the trigger "When a Teams webhook
request is received" (`rooms.ops = "env:OPS_FLOW"`). The URL holds its own signature: it is a secret.

| the workflow answers | outcome |
|---|---|
| 200, 202 | Accepted; the id is that of the workflow's run. It posts later: a failure there is seen in Teams alone |
| 429 | Throttled |
| 401, 403, 404, 410: the workflow is removed, or not ours to call | Misconfigured |
| `WorkflowTriggerIsNotEnabled`, `WorkflowNotFound`, `DirectApiAuthorizationRequired`: the same | Misconfigured |
| `TriggerInputSchemaMismatch`: it is a workflow of another kind | Misconfigured |
| 400 and any other 4xx; 413 | Refused |
| 503 | Unavailable; with Retry-After TryLater |
| 500, 502, 504 | Uncertain |

The statuses that are not named here are those of `channels.http`. A workflow knows no idempotency key; our delivery's
id travels as `x-ms-client-tracking-id` and is found again in the run's history. A workflow that was removed stops
the whole provider, until its room is mended or taken out: give rooms of other owners a provider of their own.

The card is made of text runs, in which Teams looks for no markup: a value mentions nobody (a mention needs an entry
of its own in the card) and links nowhere. The request has at most 28 KiB. (learn.microsoft.com: create incoming
webhooks with Workflows; adaptivecards.io: RichTextBlock.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from channels.chat._markdown import Line, Run, lines_of, paragraphs, title_of, too_long
from channels.chat._rooms import ROOM_OPTIONS, Hook, Rooms, accepted
from channels.contract import Accepted, Capability, ChannelError, Deadline, Message, Misconfigured
from channels.http import Answer, Meaning, Options, to_json

_GONE: Final[Meaning] = (
    Misconfigured,
    "the workflow is removed, switched off or not ours to call; mend it in Teams, or set its new URL",
)
STATUSES: Final[Mapping[int, Meaning]] = {401: _GONE, 403: _GONE, 404: _GONE, 410: _GONE}
CODES: Final[Mapping[str, Meaning]] = {
    "WorkflowTriggerIsNotEnabled": _GONE,
    "WorkflowNotFound": _GONE,
    "DirectApiAuthorizationRequired": _GONE,
    "TriggerInputSchemaMismatch": (
        Misconfigured,
        'the workflow begins with another trigger; make one of "When a Teams webhook request is received"',
    ),
}
"""What the body of an error may say, under `error.code`."""

MAX_BODY: Final = 28 * 1024
"""Bytes of a message to Teams, card and all."""
_TITLE: Final = 100
_HOOK: Final = Hook("chat.teams", "Teams", "/workflows/")


def build(name: str, options: Mapping[str, Any]) -> Teams:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `rooms`, required: names and the URLs of their workflows; `connections` (to each server),
            `ca_file`, `proxy`.

    Raises:
        Misconfigured: an option is missing, wrong or unknown.
    """
    given = Options("chat.teams", name, options, ROOM_OPTIONS)
    return Teams(name, Rooms.read(given, name, options, _HOOK))


class Teams:
    """Posts to Teams. Made by `build`.

    Args:
        name: of the provider in the configuration.
        rooms: where to.
    """

    capability = Capability.OPAQUE

    def __init__(self, name: str, rooms: Rooms) -> None:
        self._name = name
        self._rooms = rooms

    def __repr__(self) -> str:
        return f"<chat.teams {self._name!r}>"

    def reaches(self, address: str) -> bool:
        """Whether it has a room of this name."""
        return self._rooms.reaches(address)

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one post over. See `Provider.send`; the module has the table."""
        body = to_json(_post(lines_of(message)))
        if len(body) > MAX_BODY:
            raise too_long(len(body), MAX_BODY, "bytes", "Teams")
        room = self._rooms.find(message.address)
        answer = room.post(body, deadline, headers={"x-ms-client-tracking-id": message.delivery_id})
        failure = _failure(answer)
        if failure is not None:
            raise failure
        return accepted(answer, str(answer.status), message, "x-ms-workflow-run-id")

    def close(self) -> None:
        """Close the pooled connections."""
        self._rooms.close()


def _failure(answer: Answer) -> ChannelError | None:
    failure = answer.failure(Capability.OPAQUE, STATUSES)
    if failure is None:
        return None
    error = answer.fields().get("error")
    return answer.refusal(error.get("code") if isinstance(error, dict) else None, CODES) or failure


# --- the card -----------------------------------------------------------------------------------------


def _post(lines: Sequence[Line]) -> dict[str, Any]:
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": title_of(lines, _TITLE),
        "body": list(_blocks(lines)),
        "msteams": {"width": "Full"},
    }
    content_type = "application/vnd.microsoft.card.adaptive"
    return {
        "type": "message",
        "attachments": [{"contentType": content_type, "contentUrl": None, "content": card}],
    }


def _blocks(lines: Sequence[Line]) -> Iterable[dict[str, Any]]:
    for part in paragraphs(lines):
        for quote, group in groupby(part, lambda line: line.quote):
            rows = [_row(line, first=place == 0) for place, line in enumerate(group)]
            if quote:
                yield {"type": "Container", "style": "emphasis", "items": rows}
            else:
                yield from rows


def _row(line: Line, *, first: bool) -> dict[str, Any]:
    marker = [{"type": "TextRun", "text": line.marker}] if line.marker else []
    row = {"type": "RichTextBlock", "inlines": [*marker, *(_inline(run) for run in line.runs)]}
    return row if first else {**row, "spacing": "None"}


def _inline(run: Run) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "TextRun", "text": run.words}
    if run.bold:
        made["weight"] = "Bolder"
    if run.italic:
        made["italic"] = True
    if run.struck:
        made["strikethrough"] = True
    if run.code:
        made["fontType"] = "Monospace"
    if run.web is not None:
        made |= {"color": "Accent", "selectAction": {"type": "Action.OpenUrl", "url": run.web}}
    return made
