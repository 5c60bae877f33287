"""`chat.slack`: a post by an app's incoming webhook, or by its bot token and `chat.postMessage`.

With `rooms`, an address is the name of a room, and each room has the URL of a hook, which posts into one
channel (`rooms.ops = "env:OPS_HOOK"`). With `token`, an address is what Slack calls a conversation: the id of a
channel or a person (`C0123456789`, `U...`), or `#name`. A provider has one of the two.

| a hook answers | outcome |
|---|---|
| 200 | Accepted; the id is that of the request |
| 429, `rate_limited` (one post a second and hook) | Throttled |
| `no_service`, `no_active_hooks`, `invalid_token`, `no_team`, `team_disabled`; 401, 403, 404 | Misconfigured |
| `channel_is_archived`, `channel_not_found`, `user_not_found`, `action_prohibited`; 410 | AddressInvalid |
| `invalid_payload`, `no_text`, `invalid_blocks`; any other 4xx | Refused |
| `rollup_error`; 500, 502, 504 | Uncertain |

| `chat.postMessage` answers, mostly with 200 | outcome |
|---|---|
| `"ok": true` | Accepted; the id is `ts` |
| `ratelimited`, `rate_limited`, `message_limit_exceeded`; 429 | Throttled |
| a token or a right that is not what it should be: `invalid_auth`, `missing_scope`... | Misconfigured |
| `channel_not_found`, `is_archived`, `user_not_found`, `user_disabled`, `cannot_dm_bot` | AddressInvalid |
| `not_in_channel`, `restricted_action...`: people can mend it, so the address is not suppressed | Refused |
| `msg_too_long`, `no_text`, `invalid_arguments`, and any error that is not here | Refused |
| `request_timeout`, `team_added_to_org` | TryLater |
| `service_unavailable`, `accesslimited` | Unavailable |
| `fatal_error`, `internal_error`: part of it may have happened; an answer that cannot be read | Uncertain |

The statuses of both that are not named here are those of `channels.http`. Slack has no idempotency key: a lost
answer stays unknown. A hook that Slack knows no more stops the whole provider, until its room is mended or taken out:
give rooms of other owners a provider of their own. A room whose channel is gone is suppressed by its name: call its
successor otherwise. (docs.slack.dev: incoming webhooks, `chat.postMessage`.)

The text is Slack's mrkdwn, at most 40000 characters: Slack cuts off what is longer. `&`, `<` and `>` of a value are
escaped, so that it mentions nobody and links nowhere; stars and strokes that would be marks are replaced by their
likeness, since mrkdwn has no escape for them. Links are not unfolded: Slack would fetch them, and a link that works
once would be spent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from channels.chat._lookalikes import marked
from channels.chat._markdown import BARE_URL, Line, Run, lines_of, too_long
from channels.chat._rooms import ROOM_OPTIONS, Hook, Rooms, accepted
from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    ChannelError,
    Deadline,
    Message,
    Misconfigured,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from channels.http import CLIENT_OPTIONS, Answer, Client, Meaning, Options, Secret, to_json

_SLOWER: Final[Meaning] = (Throttled, "Slack asks us to slow down; see the provider's rate")
_HOOK_GONE: Final[Meaning] = (
    Misconfigured,
    "Slack knows the hook no more; make a new one and set its variable",
)
_ROOM_GONE: Final[Meaning] = (
    AddressInvalid,
    "the channel is archived or gone; give the recipient another address",
)
_UNFIT: Final[Meaning] = (Refused, "Slack cannot read the post; mend the template, or update this fleet")
_HALF: Final[Meaning] = (Uncertain, "Slack failed with the post in hand")

HOOK_WORDS: Final[Mapping[str, Meaning]] = {
    "rate_limited": _SLOWER,
    **dict.fromkeys(
        ("no_service", "no_active_hooks", "invalid_token", "no_team", "team_disabled"), _HOOK_GONE
    ),
    **dict.fromkeys(("channel_is_archived", "channel_not_found", "user_not_found"), _ROOM_GONE),
    "action_prohibited": (AddressInvalid, "the workspace's rules forbid posts there; ask its administrators"),
    **dict.fromkeys(("invalid_payload", "no_text", "invalid_blocks"), _UNFIT),
    "rollup_error": _HALF,
}
"""What a hook says in words, with a status of 4xx or 5xx."""
HOOK_STATUSES: Final[Mapping[int, Meaning]] = {403: _HOOK_GONE, 404: _HOOK_GONE, 410: _ROOM_GONE}

_TOKEN: Final[Meaning] = (Misconfigured, "Slack refused the token; install the app again and set the new one")
_RIGHT: Final[Meaning] = (
    Misconfigured,
    "the app may not post; give it the scope chat:write, and install it again",
)
_LET_IN: Final[Meaning] = (Refused, "the app may not post there; invite it into the channel, then replay")
API_ERRORS: Final[Mapping[str, Meaning]] = {
    **dict.fromkeys(("ratelimited", "rate_limited", "message_limit_exceeded"), _SLOWER),
    **dict.fromkeys(
        ("invalid_auth", "not_authed", "account_inactive", "token_expired", "token_revoked"), _TOKEN
    ),
    **dict.fromkeys(("not_allowed_token_type", "two_factor_setup_required"), _TOKEN),
    **dict.fromkeys(("missing_scope", "no_permission", "access_denied", "ekm_access_denied"), _RIGHT),
    **dict.fromkeys(("team_access_not_granted", "enterprise_is_restricted", "org_login_required"), _RIGHT),
    **dict.fromkeys(("deprecated_endpoint", "method_deprecated"), (Misconfigured, "update this fleet")),
    **dict.fromkeys(("channel_not_found", "is_archived", "user_not_found", "user_disabled"), _ROOM_GONE),
    "cannot_dm_bot": (AddressInvalid, "the address is a bot's; give the recipient another"),
    **dict.fromkeys(("not_in_channel", "restricted_action", "messages_tab_disabled"), _LET_IN),
    **dict.fromkeys(
        ("restricted_action_read_only_channel", "restricted_action_thread_only_channel"), _LET_IN
    ),
    **dict.fromkeys(("msg_too_long", "no_text", "invalid_arguments", "invalid_json"), _UNFIT),
    **dict.fromkeys(("request_timeout", "team_added_to_org"), (TryLater, "Slack did not take the post now")),
    **dict.fromkeys(("service_unavailable", "accesslimited"), (Unavailable, "Slack is not available")),
    **dict.fromkeys(("fatal_error", "internal_error"), _HALF),
}

MAX_TEXT: Final = 40_000
"""Characters of a post's text, by chat.postMessage's documentation."""
_HOOK: Final = Hook("chat.slack", "Slack", "/services/")
_CONVERSATION: Final = re.compile(r"[A-Z][A-Z0-9]{6,30}|#[^\s#]{1,80}")
_ERROR: Final = re.compile(r"[a-z_]{1,60}")


def build(name: str, options: Mapping[str, Any]) -> Slack:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `rooms` (names and the URLs of their hooks) or `token` (`xoxb-...`), one of them required;
            `url` of the API beside a token; `connections`, `ca_file`, `proxy`.

    Raises:
        Misconfigured: an option is missing, wrong or unknown.
    """
    known = {*ROOM_OPTIONS, *CLIENT_OPTIONS, "token"}
    given = Options("chat.slack", name, options, known)
    if options.get("rooms") is not None:
        for other in ("token", "url"):
            if options.get(other) is not None:
                raise given.wrong(other, "stands beside rooms; make two providers of them")
        return Slack(name, _ByHook(Rooms.read(given, name, options, _HOOK)))
    if options.get("token") is None:
        raise given.wrong(
            "token", 'is missing; write token = "env:SLACK_TOKEN", or rooms.ops = "env:OPS_HOOK"'
        )
    return Slack(name, _ByToken(given.secret("token"), Client.read(given, "https://slack.com")))


class Slack:
    """Posts to Slack. Made by `build`.

    Args:
        name: of the provider in the configuration.
        way: by hook or by token.
    """

    capability = Capability.OPAQUE

    def __init__(self, name: str, way: _ByHook | _ByToken) -> None:
        self._name = name
        self._way = way

    def __repr__(self) -> str:
        return f"<chat.slack {self._name!r}>"

    def reaches(self, address: str) -> bool:
        """Whether it has a room of this name; by its token, whether the address can be a conversation's."""
        return self._way.reaches(address)

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one post over. See `Provider.send`; the module has the tables."""
        text = mrkdwn(lines_of(message))
        if len(text) > MAX_TEXT:
            raise too_long(len(text), MAX_TEXT, "characters", "Slack")
        post = {"text": text, "mrkdwn": True, "unfurl_links": False, "unfurl_media": False}
        return self._way.send(message, post, deadline)

    def close(self) -> None:
        """Close the pooled connections."""
        self._way.close()


class _ByHook:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self.reaches = rooms.reaches
        self.close: Callable[[], None] = rooms.close

    def send(self, message: Message, post: Mapping[str, Any], deadline: Deadline) -> Accepted:
        answer = self._rooms.find(message.address).post(to_json(post), deadline)
        failure = answer.failure(Capability.OPAQUE, HOOK_STATUSES)
        if failure is not None:
            raise answer.refusal(answer.text().strip(), HOOK_WORDS) or failure
        return accepted(answer, str(answer.status), message, "x-slack-req-id")


class _ByToken:
    def __init__(self, token: Secret, client: Client) -> None:
        self._token = token
        self._client = client
        self.close: Callable[[], None] = client.close

    def reaches(self, address: str) -> bool:
        return _CONVERSATION.fullmatch(address) is not None

    def send(self, message: Message, post: Mapping[str, Any], deadline: Deadline) -> Accepted:
        if not _CONVERSATION.fullmatch(message.address):
            raise Refused(
                "address", "the address is no id of a Slack channel or person, and no #name; correct it"
            )
        # The metadata is where the delivery's id can be found again, by those who may read the channel.
        about = {"event_type": "notification", "event_payload": {"delivery_id": message.delivery_id}}
        answer = self._client.request(
            "POST",
            "/api/chat.postMessage",
            deadline,
            body=to_json({**post, "channel": message.address, "link_names": False, "metadata": about}),
            headers={
                "Content-Type": "application/json; charset=utf-8",
                "Authorization": f"Bearer {self._token.reveal()}",
            },
        )
        failure = _api_failure(answer)
        if failure is not None:
            raise failure
        return Accepted(answer.identifier("ts"), "ok")


def _api_failure(answer: Answer) -> ChannelError | None:
    fields = answer.fields()
    error = fields.get("error")
    failure = answer.refusal(error, API_ERRORS) or answer.failure(Capability.OPAQUE)
    if failure is not None:
        return failure
    if fields.get("ok") is True:
        return None
    if fields.get("ok") is False and isinstance(error, str) and _ERROR.fullmatch(error):
        return Refused(error, "Slack refused the post; chat.postMessage's documentation explains the error")
    return Uncertain("unreadable", "the answer cannot be read: neither a yes nor a no")


# --- mrkdwn -------------------------------------------------------------------------------------------

_HALT: Final = "\u200b"
_LIKE: Final = str.maketrans("*_~`", "∗＿∼ˋ")  # noqa: RUF001 - that they look alike is the point
_MARK: Final = re.compile(r"`|(?<![^\W_])[*_~]+(?=\S)|(?<=\S)[*_~]+(?![^\W_])")
"""What Slack may take for a mark: inside a word, a stroke is a stroke."""


def mrkdwn(lines: Sequence[Line]) -> str:
    """Lines in Slack's own markup (docs.slack.dev, formatting message text)."""
    return "\n".join(("> " if line.quote else "") + line.marker + _row(line.runs) for line in lines)


def _row(runs: Sequence[Run]) -> str:
    made = ""
    for before, run in zip((None, *runs), runs, strict=False):
        # Between two letters Slack takes no mark for one; a character without width makes room for it.
        if before is not None and before.text[-1].isalnum() and run.text[0].isalnum():
            made += _HALT
        made += _piece(run)
    return made


def _piece(run: Run) -> str:
    if run.code:
        return "`" + _escaped(run.text.replace("`", "ˋ")) + "`"  # noqa: RUF001 - as above
    text = _escaped(_without_marks(run.text))
    if run.url is not None:
        text = f"<{_escaped(run.url)}|{text}>"
    for wanted, mark in ((run.bold, "*"), (run.italic, "_"), (run.struck, "~")):
        text = marked(text, mark) if wanted else text
    return text


def _without_marks(text: str) -> str:
    # Every second part is an address, which would lead elsewhere without its strokes.
    return "".join(
        part if place % 2 else _MARK.sub(lambda found: found[0].translate(_LIKE), part)
        for place, part in enumerate(BARE_URL.split(text))
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
