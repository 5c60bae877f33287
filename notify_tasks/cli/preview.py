"""`notify templates preview`: a page that follows the files, or text."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from notify_tasks import settings
from notify_tasks.errors import InvalidCall, NotConfigured
from notify_tasks.rendering import Catalog
from notify_tasks.templates_check import preview
from notify_tasks.terminal.output import bold, dim, stdout


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C or SIGTERM; or print, where an option asks for text."""
    root = Path(settings.get().templates)
    if options.json or options.text or options.channel or options.locale:
        return _print(root, options)
    return _serve(root, options)


# --- the page -------------------------------------------------------------------------------------------


def _serve(root: Path, options: argparse.Namespace) -> int:
    from notify_tasks.pages.preview import serving  # noqa: PLC0415 - text needs no web server

    _check_name(root, options.type)
    signal.signal(signal.SIGTERM, _end)
    out = stdout()
    try:
        with serving(root, options.port) as url:
            address = f"{url}/types/{options.type}" if options.type else url
            out.say([bold(address), f"  follows the files in {root}; Ctrl-C ends it"])
            if not options.no_browser and has_desktop(os.environ, sys.platform) and out.terminal:
                webbrowser.open(address)
            threading.Event().wait()
    except KeyboardInterrupt:
        out.say("stopped")
    except OSError as error:
        raise NotConfigured(f"{error.strerror or error} with --port, or leave --port out") from None
    return 0


def _check_name(root: Path, name: str | None) -> None:
    names = Catalog(root).names()
    if name is None or name in names:
        return
    near = difflib.get_close_matches(name, names, n=1)
    remedy = f"Did you mean {near[0]}?" if near else f"Type `notify templates new {name}` to make it"
    raise InvalidCall("TYPE", f"there is no notification type {name!r}", remedy)


def has_desktop(environment: Mapping[str, str], platform: str) -> bool:
    """Whether a browser opened here would be seen: never in CI, and on Linux only where there is a display."""
    if environment.get("CI"):
        return False
    return platform in {"darwin", "win32"} or any(
        environment.get(it) for it in ("DISPLAY", "WAYLAND_DISPLAY")
    )


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# --- text -----------------------------------------------------------------------------------------------


def _print(root: Path, options: argparse.Namespace) -> int:
    if options.type is None:
        raise InvalidCall(
            "TYPE", "no type is named", "Name one: notify templates preview order.shipped --text"
        )
    shown = preview(root, options.type, options.channel, options.locale)
    out = stdout()
    if options.json:
        out.plain(json.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    out.say([bold(options.type), dim(f"  version {shown['version']}")])
    for channel, parts in shown["channels"].items():
        out.say()
        out.say([bold(channel), dim(f"  locale {parts['locale']}")])
        for name, value in parts.items():
            if name == "html" and value is not None:
                out.say([dim(f"  html     {len(value.encode())} bytes; --json has it")])
            elif name != "locale" and value is not None:
                _part(name, value)
    return 0


def _part(name: str, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    first, *rest = text.rstrip("\n").split("\n")
    out = stdout()
    out.say([dim(f"  {name:<8} "), first])
    for line in rest:
        out.say(f"           {line}".rstrip())
