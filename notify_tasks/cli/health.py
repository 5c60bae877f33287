"""`notify health`: for a container's health check, for a probe, for a look by hand."""

from __future__ import annotations

import argparse
import os
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from notify_tasks import health
from notify_tasks.errors import NotConfigured

HTTP_SECONDS: Final = 3.0
OK: Final = 200


def run(options: argparse.Namespace) -> int:
    """Say whether a process is well: exit status 0, or 1 with the reason."""
    judged = _answers(options.url) if options.url else _signs(options)
    print(judged.said)  # noqa: T201 - plain: an engine keeps the line, and no terminal reads it
    return 0 if judged.well else 1


def _signs(options: argparse.Namespace) -> health.Judgement:
    file = Path(options.file) if options.file else health.file_of(os.environ)
    if file is None:
        raise NotConfigured(
            f"no file is named in which to look for a sign of life; set {health.FILE_VARIABLE} here and for "
            "the process, or write --file FILE, or --url URL for what answers over HTTP"
        )
    return health.judge(file, max_age=options.max_age)


def _answers(url: str) -> health.Judgement:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise NotConfigured("--url takes http://host:port/path")
    connection = HTTPConnection(parts.hostname, parts.port, timeout=HTTP_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return health.Judgement(well=False, said=f"{url} does not answer ({type(error).__name__})")
    finally:
        connection.close()
    return health.Judgement(well=status == OK, said=f"{url} answers {status}")
