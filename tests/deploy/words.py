"""Whether words that a file of deploy/ or docs/ hands to the image mean something, by the real parsers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import click
from celery.bin.beat import beat
from celery.bin.worker import worker

from notify_tasks.cli.parser import build
from notify_tasks.routing import ALL_QUEUES

ROOT = Path(__file__).parents[2]
_CELERY: dict[str, Any] = {"worker": worker, "beat": beat}


def check_command(words: Sequence[str]) -> None:
    """Fail unless the image's entry point understands the words.

    Args:
        words: the first one is the role: `worker`, `beat`, `flower`, or a command of `notify`.
    """
    role, *rest = words
    entry = _entry_point()
    if role == "flower":
        assert rest == []
    elif role in entry.CELERY:
        options = _parsed(role, [*entry.CELERY[role], *rest])
        unknown = set(options.get("queues") or ()) - set(ALL_QUEUES)
        assert not unknown, f"there is no queue {unknown}"
    else:
        parse(words)


def parse(words: Sequence[str]) -> Any:
    """What `notify`'s own parser makes of the words."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return build().parse_args(list(words))
    except SystemExit as leaving:
        if leaving.code in {0, None}:
            return None  # --help
        raise AssertionError(f"notify {' '.join(words)}: {said.getvalue()}") from None


def _parsed(role: str, words: list[str]) -> dict[str, Any]:
    """Celery's options, by its own click command, without running it."""
    try:
        context = _CELERY[role].make_context(role, words, resilient_parsing=False, obj=_Any())
    except click.ClickException as error:
        raise AssertionError(f"celery {role} {' '.join(words)}: {error.format_message()}") from None
    found: dict[str, Any] = context.params
    return found


class _Any:
    """Stands for Celery's context object, of which the options' defaults ask settings."""

    def __getattr__(self, name: str) -> Any:
        return _Any()

    def __call__(self, *_: object, **__: object) -> None:
        return None


def _entry_point() -> Any:
    spec = spec_from_file_location("entrypoint", ROOT / "deploy/entrypoint.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
