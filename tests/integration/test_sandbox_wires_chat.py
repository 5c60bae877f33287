"""The sandbox as five chat services: each takes, refuses and words its answers as its own documentation has them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from integration.wire_clients import Answer, ask, row, send, shown

from channels.contract import (
    Accepted,
    AddressInvalid,
    ChannelError,
    ChatContent,
    Misconfigured,
    Provider,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from channels.loader import load
from notify_tasks.sandbox import Sandbox, credentials, sandbox_process
from tests.support.wired import last

POST = ChatContent(
    "**Order 981** is on its way\n\nTrack it [on its page](https://shop.example/orders/981).\n\n"
    "> Zoë says <b>thanks</b> & bye"
)
SERVICES = ("slack", "teams", "dingtalk", "feishu", "wecom")
SECRETS = {"dingtalk": "SANDBOX_DINGTALK_SECRET", "feishu": "SANDBOX_FEISHU_SECRET"}
ROOMS = ("ops", "bounce-1", "throttle-1", "reject-1", "lost-1", "keyword-981", "keyword-982")


@pytest.fixture(scope="module")
def far_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_process(tmp_path_factory.mktemp("sandbox"), page=True, page_port=0) as running:
        yield running


@pytest.fixture
def sandbox(far_end: Sandbox) -> Sandbox:
    far_end.clear_modes()
    return far_end


def provider(
    sandbox: Sandbox, service: str, *, secret: str | None = None, change: Callable[[str], str] = str
) -> Provider:
    """Our provider of a service, with the rooms that these tests know.

    Args:
        secret: that it signs with, instead of the service's.
        change: what becomes of each hook's URL.
    """
    signing = secret or sandbox.ready.environment.get(SECRETS.get(service, ""))
    rooms: dict[str, Any] = {}
    for room in (*ROOMS, ""):
        url = change(credentials.chat_hooks(sandbox.http_url, room)[service])
        rooms[room or "general"] = {"url": url, "secret": signing} if signing else url
    return load(f"chat.{service}", service, {"rooms": rooms})


@pytest.fixture(scope="module")
def services(far_end: Sandbox) -> Iterator[dict[str, Provider]]:
    found = {service: provider(far_end, service) for service in SERVICES}
    options = {"token": far_end.ready.environment["SANDBOX_SLACK_TOKEN"], "url": far_end.http_url}
    found["slack-api"] = load("chat.slack", "slack-api", options)
    yield found
    for each in found.values():
        each.close()


# --- taken ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_a_post_is_taken_and_drawn(sandbox: Sandbox, services: dict[str, Provider], service: str) -> None:
    message, outcome = send(services[service], "chat", "ops", POST)

    taken = last(sandbox)
    assert isinstance(outcome, Accepted)
    assert outcome.provider_message_id in {taken.id, message.idempotency_key}
    assert (taken.protocol, taken.channel, taken.kind) == (service, "chat", "opaque")
    assert (taken.accepted, taken.to) == (True, "ops")
    page = shown(sandbox, taken.id)
    drawn = page.partition('<div class="markdown">')[2].partition("</section>")[0]
    assert "Order 981</" in drawn, "bold, however the service marks it"
    assert 'href="https://shop.example/orders/981"' in drawn
    assert ">on its page</a>" in drawn
    assert "<b>thanks" not in drawn
    assert f'<span class="badge">{service.title()}'.lower() in row(sandbox, taken.id).lower()


def test_a_post_by_token_has_its_delivery_id(sandbox: Sandbox, services: dict[str, Provider]) -> None:
    message, outcome = send(services["slack-api"], "chat", "#ops", POST)

    taken = last(sandbox)
    assert (taken.accepted, taken.to, taken.delivery_id) == (True, "ops", message.delivery_id)
    assert isinstance(outcome, Accepted)
    assert outcome.provider_message_id == f"{int(taken.at.timestamp())}.{taken.n:06d}"


def test_a_workflow_tells_the_delivery_id_back(sandbox: Sandbox, services: dict[str, Provider]) -> None:
    message, _ = send(services["teams"], "chat", "general", POST)

    assert (last(sandbox).delivery_id, last(sandbox).to) == (message.delivery_id, "general")


# --- refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "mode", "error", "code"),
    [
        ("slack", "wrong_key", Misconfigured, "no_service"),
        ("slack", "dead_address", AddressInvalid, "channel_is_archived"),
        ("slack", "400", Refused, "invalid_payload"),
        ("slack", "429", Throttled, "rate_limited"),
        ("slack", "500", Uncertain, "rollup_error"),
        ("slack", "503", TryLater, "503"),
        ("slack-api", "wrong_key", Misconfigured, "invalid_auth"),
        ("slack-api", "dead_address", AddressInvalid, "channel_not_found"),
        ("slack-api", "not_in_channel", Refused, "not_in_channel"),
        ("slack-api", "429", Throttled, "ratelimited"),
        ("slack-api", "500", Uncertain, "500"),
        ("teams", "wrong_key", Misconfigured, "401"),
        ("teams", "dead_address", Misconfigured, "WorkflowNotFound"),
        ("teams", "switched_off", Misconfigured, "WorkflowTriggerIsNotEnabled"),
        ("teams", "400", Misconfigured, "TriggerInputSchemaMismatch"),
        ("teams", "429", Throttled, "429"),
        ("teams", "500", Uncertain, "500"),
        ("dingtalk", "wrong_key", Misconfigured, "300001"),
        ("dingtalk", "dead_address", AddressInvalid, "400013"),
        ("dingtalk", "throttled", Throttled, "130101"),
        ("dingtalk", "310000", Misconfigured, "310000"),
        ("dingtalk", "busy", TryLater, "-1"),
        ("dingtalk", "429", Throttled, "429"),
        ("dingtalk", "500", Uncertain, "500"),
        ("feishu", "wrong_key", Misconfigured, "19001"),
        ("feishu", "throttled", Throttled, "11232"),
        ("feishu", "9499", Refused, "9499"),
        ("feishu", "429", Throttled, "99991400"),
        ("feishu", "500", Uncertain, "500"),
        ("wecom", "wrong_key", Misconfigured, "93000"),
        ("wecom", "dead_address", Misconfigured, "93008"),
        ("wecom", "throttled", Throttled, "45009"),
        ("wecom", "busy", TryLater, "-1"),
        ("wecom", "429", Throttled, "429"),
        ("wecom", "500", Uncertain, "500"),
    ],
)
def test_each_service_refuses_in_its_own_words(
    sandbox: Sandbox,
    services: dict[str, Provider],
    service: str,
    mode: str,
    error: type[ChannelError],
    code: str,
) -> None:
    wait = 7 if mode in {"429", "503"} else None
    sandbox.set_mode(service.removesuffix("-api"), mode, **({} if wait is None else {"retry_after": wait}))

    _, outcome = send(services[service], "chat", "#ops" if service == "slack-api" else "ops", POST)

    assert isinstance(outcome, error)
    assert (outcome.code, outcome.retry_after) == (code, wait)
    assert (last(sandbox).accepted, last(sandbox).mode) == (False, mode)


def test_a_service_that_is_down_is_left_alone(sandbox: Sandbox, services: dict[str, Provider]) -> None:
    sandbox.set_mode("wecom", "503")

    assert isinstance(send(services["wecom"], "chat", "ops", POST)[1], Unavailable)
    assert isinstance(send(services["dingtalk"], "chat", "ops", POST)[1], Accepted)


@pytest.mark.parametrize(
    ("service", "room", "error"),
    [
        ("slack", "bounce-1", AddressInvalid),
        ("slack", "throttle-1", Throttled),
        ("teams", "bounce-1", Misconfigured),
        ("teams", "lost-1", Uncertain),
        ("dingtalk", "bounce-1", AddressInvalid),
        ("dingtalk", "throttle-1", Throttled),
        ("dingtalk", "reject-1", Refused),
        ("feishu", "throttle-1", Throttled),
        ("feishu", "reject-1", Refused),
        ("wecom", "throttle-1", Throttled),
        ("wecom", "reject-1", Refused),
    ],
)
def test_rooms_misbehave_by_their_names(
    sandbox: Sandbox, services: dict[str, Provider], service: str, room: str, error: type[ChannelError]
) -> None:
    assert isinstance(send(services[service], "chat", room, POST)[1], error)


@pytest.mark.parametrize(
    ("service", "change", "code"),
    [
        ("slack", lambda url: url.replace("/TSANDBOX/", "/TELSEWHERE/"), "no_team"),
        ("slack", lambda url: url.replace(credentials.SLACK_HOOK_PATH[-24:], "x" * 24), "no_service"),
        ("teams", lambda url: url.replace("sig=", "sig=x"), "401"),
        ("teams", lambda url: url.replace("&sig=", "&gone="), "DirectApiAuthorizationRequired"),
        ("teams", lambda url: url.replace(credentials.TEAMS_WORKFLOW, "0" * 32), "WorkflowNotFound"),
        ("dingtalk", lambda url: url.replace("access_token=", "access_token=x"), "300001"),
        ("feishu", lambda url: url.replace("/hook/", "/hook/x"), "19001"),
        ("wecom", lambda url: url.replace("key=", "key=x"), "93000"),
    ],
)
def test_a_hook_that_nobody_has_is_refused(
    sandbox: Sandbox, service: str, change: Callable[[str], str], code: str
) -> None:
    stranger = provider(sandbox, service, change=change)

    _, outcome = send(stranger, "chat", "ops", POST)

    assert isinstance(outcome, Misconfigured)
    assert outcome.code == code
    assert (last(sandbox).action, last(sandbox).accepted) == ("invalid", False)
    stranger.close()


@pytest.mark.parametrize(("service", "code"), [("dingtalk", "310000"), ("feishu", "19021")])
def test_a_robot_refuses_another_secret(sandbox: Sandbox, service: str, code: str) -> None:
    stranger = provider(sandbox, service, secret="SECanother")

    _, outcome = send(stranger, "chat", "ops", POST)

    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, last(sandbox).action) == (code, "invalid")
    assert isinstance(send(stranger, "chat", "keyword-981", POST)[1], Accepted), "the keyword is enough there"
    missing = send(stranger, "chat", "keyword-982", POST)[1]
    assert isinstance(missing, Misconfigured)
    assert missing.code in {"310000", "19024"}
    stranger.close()


# --- clients that know nothing of our providers ---------------------------------------------------------------------


def hook(sandbox: Sandbox, service: str, body: object, query: str = "") -> Answer:
    """Post to the general room."""
    raw = body if isinstance(body, str) else json.dumps(body)
    url = credentials.chat_hooks(sandbox.http_url)[service]
    return ask(url + query, "POST", raw, {"Content-Type": "application/json"})


def told(answer: Answer) -> Any:
    return json.loads(answer.body)


def dingtalk_sign(at: float) -> str:
    """As open.dingtalk.com shows it in Python."""
    timestamp, secret = str(round(at * 1000)), credentials.DINGTALK_SECRET
    signed = f"{timestamp}\n{secret}".encode()
    made = hmac.new(secret.encode(), signed, digestmod=hashlib.sha256).digest()
    return f"&timestamp={timestamp}&sign={quote(base64.b64encode(made), safe='')}"


@pytest.mark.parametrize(
    ("post", "seconds", "code"),
    [
        ({"msgtype": "text", "text": {"content": "hi"}}, 0, 0),
        ({"msgtype": "text", "text": {"content": "hi"}}, -3500, 0),
        ({"msgtype": "text", "text": {"content": "hi"}}, -3700, 310000),
        ({"msgtype": "text", "text": {"content": ""}}, 0, 40035),
        ({"msgtype": "markdown", "markdown": {"text": "no title"}}, 0, 40035),
        ({"msgtype": "song"}, 0, 400105),
        ("not JSON", 0, 40035),
        ({"msgtype": "text", "text": {"content": "x" * 20_000}}, 0, 460101),
    ],
)
def test_dingtalk_reads_a_post_and_the_clock(
    sandbox: Sandbox, post: object, seconds: float, code: int
) -> None:
    answer = hook(sandbox, "dingtalk", post, dingtalk_sign(time.time() + seconds))

    assert (answer.status, told(answer)["errcode"]) == (200, code)
    assert last(sandbox).accepted == (code == 0)


def test_dingtalk_wants_a_signature(sandbox: Sandbox) -> None:
    assert (
        told(hook(sandbox, "dingtalk", {"msgtype": "text", "text": {"content": "hi"}}))["errcode"] == 310000
    )


def feishu_sign(at: float) -> dict[str, str]:
    """As open.feishu.cn shows it in Python."""
    timestamp = str(int(at))
    key = f"{timestamp}\n{credentials.FEISHU_SECRET}".encode()
    made = hmac.new(key, digestmod=hashlib.sha256).digest()
    return {"timestamp": timestamp, "sign": base64.b64encode(made).decode()}


@pytest.mark.parametrize(
    ("post", "seconds", "code"),
    [
        ({"msg_type": "text", "content": {"text": "hi"}}, 0, 0),
        ({"msg_type": "interactive", "card": {"elements": [{"tag": "markdown", "content": "hi"}]}}, 0, 0),
        ({"msg_type": "text", "content": {"text": "hi"}}, -3700, 19021),
        ({"msg_type": "text", "content": {}}, 0, 9499),
        ({"msg_type": "text", "content": {"text": "x" * 20_480}}, 0, 9499),
    ],
)
def test_feishu_reads_a_post_and_the_clock(
    sandbox: Sandbox, post: dict[str, Any], seconds: float, code: int
) -> None:
    answer = hook(sandbox, "feishu", {**post, **feishu_sign(time.time() + seconds)})

    assert (answer.status, told(answer)["code"]) == (200, code)
    assert last(sandbox).accepted == (code == 0)


@pytest.mark.parametrize(
    ("post", "code"),
    [
        ({"msgtype": "text", "text": {"content": "hi"}}, 0),
        ({"msgtype": "news", "news": {"articles": []}}, 0),
        ({"msgtype": "markdown", "markdown": {"content": "x" * 4096}}, 0),
        ({"msgtype": "markdown", "markdown": {"content": "x" * 4097}}, 45002),
        ({"msgtype": "text", "text": {"content": ""}}, 44004),
        ({"msgtype": "song"}, 40008),
        ("not JSON", 47001),
    ],
)
def test_wecom_reads_a_post(sandbox: Sandbox, post: object, code: int) -> None:
    answer = hook(sandbox, "wecom", post)

    assert (answer.status, told(answer)["errcode"]) == (200, code)
    assert last(sandbox).accepted == (code == 0)


def card(**changes: object) -> dict[str, Any]:
    content = {
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "TextBlock", "text": "hi"}],
        **changes,
    }
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "content": content}]}


@pytest.mark.parametrize(
    ("post", "status", "code"),
    [
        (card(), 202, None),
        (card(type="Card"), 400, "TriggerInputSchemaMismatch"),
        ({"text": "no card"}, 400, "TriggerInputSchemaMismatch"),
        ("not JSON", 400, "InvalidRequestContent"),
        (card(fallbackText="x" * 28 * 1024), 413, "RequestEntityTooLarge"),
    ],
)
def test_a_workflow_reads_a_card(sandbox: Sandbox, post: object, status: int, code: str | None) -> None:
    answer = hook(sandbox, "teams", post)

    assert answer.status == status
    if code is None:
        assert answer.headers["x-ms-workflow-run-id"] == last(sandbox).id
    else:
        assert told(answer)["error"]["code"] == code


def test_slack_reads_json_and_forms(sandbox: Sandbox) -> None:
    url = credentials.chat_hooks(sandbox.http_url)["slack"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    assert hook(sandbox, "slack", {"text": "hi"}).body == b"ok"
    assert ask(url, "POST", urlencode({"payload": '{"text": "from a form"}'}), form).body == b"ok"
    assert "from a form" in shown(sandbox, last(sandbox).id)
    assert (hook(sandbox, "slack", {}).status, hook(sandbox, "slack", {}).body) == (400, b"no_text")
    assert (hook(sandbox, "slack", "x").status, hook(sandbox, "slack", "x").body) == (400, b"invalid_payload")


@pytest.mark.parametrize(
    ("bearer", "post", "error"),
    [
        ("", {"channel": "C012345", "text": "hi"}, "not_authed"),
        ("Bearer xoxb-another", {"channel": "C012345", "text": "hi"}, "invalid_auth"),
        (f"Bearer {credentials.SLACK_TOKEN}", {"text": "hi"}, "channel_not_found"),
        (f"Bearer {credentials.SLACK_TOKEN}", {"channel": "C012345"}, "no_text"),
        (f"Bearer {credentials.SLACK_TOKEN}", "x", "invalid_json"),
        (f"Bearer {credentials.SLACK_TOKEN}", {"channel": "C012345", "text": "hi"}, None),
    ],
)
def test_chat_post_message_says_what_is_wrong(
    sandbox: Sandbox, bearer: str, post: object, error: str | None
) -> None:
    raw = post if isinstance(post, str) else json.dumps(post)
    headers = {"Content-Type": "application/json", "Authorization": bearer}

    answer = ask(f"{sandbox.http_url}/api/chat.postMessage", "POST", raw, headers)

    assert (answer.status, told(answer)["ok"], told(answer).get("error")) == (200, error is None, error)
    assert last(sandbox).accepted == (error is None)


@pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise imports it, where there is one
def test_apprise_is_understood(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's client of four of them, aimed here."""
    import apprise  # noqa: PLC0415 - half a second
    from apprise.plugins.feishu import NotifyFeishu  # noqa: PLC0415
    from apprise.plugins.slack import NotifySlack  # noqa: PLC0415
    from apprise.plugins.wecombot import NotifyWeComBot  # noqa: PLC0415

    monkeypatch.setattr(NotifySlack, "webhook_url", f"{sandbox.http_url}/services")
    monkeypatch.setattr(NotifyFeishu, "notify_url", f"{sandbox.http_url}/open-apis/bot/v2/hook/{{token}}/")
    monkeypatch.setattr(NotifyWeComBot, "notify_url", f"{sandbox.http_url}/cgi-bin/webhook/send?key={{key}}")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", sandbox.ready.ca_file)
    workflow = f"{credentials.TEAMS_WORKFLOW}-client"
    urls = {
        "slack": f"slack://{credentials.SLACK_HOOK_PATH.removeprefix('/services/')}",
        "feishu": f"feishu://{credentials.FEISHU_TOKEN}-keyword-client/",
        "teams": f"workflows://127.0.0.1:{sandbox.ready.https_port}/{workflow}/{credentials.TEAMS_SIGNATURE}/",
        "wecom": f"wecombot://{credentials.WECOM_KEY}/",
    }
    for service, url in urls.items():
        client = apprise.Apprise()
        assert client.add(url)
        assert client.notify(body=f"By another client, to {service}")
        taken = last(sandbox)
        assert (taken.protocol, taken.accepted) == (service, True)
        assert f"By another client, to {service}" in shown(sandbox, taken.id)
