"""What one send costs by each provider: CPU of the thread that sends, over TLS, on connections that are kept."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.report import columns, progress
from channels.contract import (
    ChatContent,
    Content,
    DataContent,
    Deadline,
    EmailContent,
    Message,
    Provider,
    TextContent,
)
from channels.loader import load
from notify_tasks.configuration.reading import read
from notify_tasks.providers import Pools
from notify_tasks.sandbox.credentials import webpush_subscription
from notify_tasks.sandbox.process import Sandbox, sandbox_process

ROOT: Final = Path(__file__).parents[1]
CHUNK: Final = 10
CALL_SECONDS: Final = 30.0
TEXT: Final = "Your order has been shipped and will arrive soon. "
DATA: Final = DataContent({"title": "Order shipped", "body": TEXT, "url": "https://shop.example/orders/1"})
CONTENTS: Final[Mapping[str, Content]] = {
    "email": EmailContent("Your order is on its way", TEXT * 60, f"<p>{TEXT * 60}</p>"),
    "sms": TextContent(TEXT),
    "push": DATA,
    "webpush": DATA,
    "webhook": DATA,
    "chat": ChatContent(f"**Shipped**: {TEXT}"),
}
ROOMS: Final = {
    "slack": "warehouse",
    "teams": "finance",
    "dingtalk": "hangzhou",
    "feishu": "shenzhen",
    "wecom": "guangzhou",
}


def measure(*, messages: int) -> str:
    """A table with one line for each provider.

    Args:
        messages: by each provider, after a few that open its connection and load its SDK.
    """
    progress(f"CPU a send: {messages} messages by each provider")
    rows: list[tuple[str, ...]] = [("CPU a send, of the sending thread", "us", "10 %", "90 %", "size")]
    with (
        tempfile.TemporaryDirectory(prefix="notify-bench-") as directory,
        _pools(Path(directory)) as (pools, far),
    ):
        providers = {
            it.use: (it.provider(), ROOMS.get(it.name, "")) for it in pools.all() if it.name != "inbox"
        }
        providers["sms.aliyun"] = _aliyun(far), ""
        for use, (provider, room) in sorted(providers.items()):
            address = room or _address(use.partition(".")[0], far)
            rows.append(_row(use, provider, address, messages))
    return columns(rows)


@contextmanager
def _pools(directory: Path) -> Iterator[tuple[Pools, Sandbox]]:
    with sandbox_process(directory) as far:
        os.environ.update(far.environment)
        pools = Pools(read(ROOT / "notify.toml", "dev", {}))
        try:
            yield pools, far
        finally:
            pools.close()


def _aliyun(far: Sandbox) -> Provider:
    """The one that `notify.dev.toml` leaves out, since its SDK is heavy."""
    said = far.environment
    options = {
        "url": said["SANDBOX_URL"],
        "ca_file": said["SANDBOX_CA_FILE"],
        "access_key_id": said["SANDBOX_ALIYUN_ACCESS_KEY_ID"],
        "access_key_secret": said["SANDBOX_ALIYUN_ACCESS_KEY_SECRET"],
        "sign_name": "Shop",
        "templates": {"order.shipped": {"code": "SMS_1", "text": "${content}"}},
    }
    return load("sms.aliyun", "bench", options)


def _address(channel: str, far: Sandbox) -> str:
    found: Mapping[str, Any] = {
        "email": "ana@example.com",
        "sms": "+447700900101",
        "push": "device-of-ana",
        "webpush": webpush_subscription(far.https_url, "browser-of-ana"),
        "webhook": f"{far.https_url}/webhooks/orders",
    }
    return str(found[channel])


def _row(use: str, provider: Provider, address: str, messages: int) -> tuple[str, ...]:
    channel, number = use.partition(".")[0], 0

    def send() -> None:
        nonlocal number
        number += 1
        id_ = f"00000000-0000-7000-8000-{number:012d}"
        message = Message(id_, id_, channel, "order.shipped", address, CONTENTS[channel])
        provider.send(message, Deadline(CALL_SECONDS))

    for _ in range(CHUNK):
        send()
    spent = []
    for _ in range(max(1, messages // CHUNK)):
        before = time.thread_time()
        for _ in range(CHUNK):
            send()
        spent.append((time.thread_time() - before) / CHUNK * 1e6)
    deciles = statistics.quantiles(spent, n=10) if len(spent) > 1 else [spent[0]] * 9
    size = f"{len(TEXT) * 120 // 1000} kB" if channel == "email" else ""
    return use, f"{statistics.median(spent):,.0f}", f"{deciles[0]:,.0f}", f"{deciles[-1]:,.0f}", size
