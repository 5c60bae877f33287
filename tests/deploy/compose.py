"""docker-compose.yml read as Compose reads it, and its services run on this machine without containers.

A service's command runs under the image's environment and its own. What only a container gives is put in its place:
host names become ports of 127.0.0.1, the image's folders become folders of the test, published ports become free ones.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml
from support.ports import free_port

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
OURS = "notify-tasks:local"

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?[-?])([^}]*))?\})")


class Missing(Exception):
    """A variable that the file needs is not set; the text is what Compose would say."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """`$$`, `${NAME}`, `${NAME:-default}` and `${NAME:?what to do}`, as the Compose specification has them."""

    def value(match: re.Match[str]) -> str:
        escaped, name, operator, rest = match.groups()
        if escaped:
            return "$"
        found = variables.get(name)
        if found or (found is not None and operator in {"-", "?", None}):
            return found
        if operator in {":-", "-"}:
            return str(rest)
        if operator in {":?", "?"}:
            raise Missing(f"required variable {name} is missing a value: {rest}")
        return ""

    return _VARIABLE.sub(value, text)


def read(variables: Mapping[str, str]) -> dict[str, Any]:
    """The file with its anchors and variables resolved. Only values are interpolated, as Compose does."""

    def resolved(value: Any) -> Any:
        if isinstance(value, str):
            return interpolate(value, variables)
        if isinstance(value, dict):
            return {key: resolved(it) for key, it in value.items()}
        return [resolved(it) for it in value] if isinstance(value, list) else value

    found: dict[str, Any] = resolved(yaml.safe_load(FILE.read_text()))
    return found


def seconds(text: str) -> float:
    """A duration as the file writes it: `110s`, `2m`."""
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def image_environment() -> dict[str, str]:
    """ENV of the Dockerfile's last stage."""
    last = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    pairs = [
        pair
        for line in last.splitlines()
        if line.startswith("ENV ")
        for pair in shlex.split(line.removeprefix("ENV "))
    ]
    return dict(pair.split("=", 1) for pair in pairs)


@dataclass(slots=True)
class Running:
    """One service of ours as a process."""

    name: str
    process: subprocess.Popen[bytes]
    environment: dict[str, str] = field(repr=False)
    log: Path
    check: list[str]

    def healthy(self) -> bool:
        """What the service's own health check says."""
        return (
            subprocess.run(
                self.check, cwd=ROOT, env=self.environment, capture_output=True, check=False
            ).returncode
            == 0
        )


@dataclass(slots=True)
class Machine:
    """Stands for the container engine.

    Args:
        directory: of the test.
        services: of the file, resolved.
        places: what to say instead of a host name with its port, or of a path: text for text.
    """

    directory: Path
    services: Mapping[str, Any]
    places: Mapping[str, str]

    def __post_init__(self) -> None:
        bin_ = self.directory / "bin"
        bin_.mkdir(parents=True)
        (bin_ / "notify").symlink_to(ROOT / "deploy/entrypoint.py")  # as the Dockerfile makes it
        for name in ("python3", "python"):
            wrapper = bin_ / name  # a link would lose the virtual environment
            wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
            wrapper.chmod(0o755)

    def environment(self, name: str) -> dict[str, str]:
        """The image's variables, then the service's, in this machine's terms."""
        variables = image_environment() | {
            key: str(value) for key, value in self.services[name].get("environment", {}).items()
        }
        placed = {key: self.placed(value, name) for key, value in variables.items()}
        if "NOTIFY_METRICS_PORT" in placed:
            placed["NOTIFY_METRICS_PORT"] = str(free_port())  # every container has the whole range to itself
        compiled = {key: os.environ[key] for key in ("PYTHONPYCACHEPREFIX",) if key in os.environ}
        here = {"PATH": f"{self.directory / 'bin'}:/usr/bin:/bin", "NOTIFY_PARENT": str(os.getpid())}
        return placed | compiled | here

    def placed(self, text: str, name: str) -> str:
        """A text of the file with this machine's ports and folders."""
        text = text.replace("/run/notify", str(self.directory / "run" / name))
        for theirs, here in self.places.items():
            text = re.sub(rf"(?<!\w){re.escape(theirs)}(?!\w)", here, text)
        return text

    def command(self, name: str, words: Sequence[str]) -> list[str]:
        """Words of the file as a command line here."""
        return [self.placed(word, name) for word in words]

    def start(self, name: str) -> Running:
        """Start a service of ours: the image's entry point with its command."""
        service = self.services[name]
        (self.directory / "run" / name).mkdir(parents=True)  # the tmpfs
        log = self.directory / f"{name}.log"
        environment = self.environment(name)
        entry = str(self.directory / "bin/notify")
        out: IO[bytes]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [entry, *self.command(name, service["command"])],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        test = service.get("healthcheck", {}).get("test", ["CMD"])
        assert test[0] == "CMD"
        check = [entry if word == "notify" else word for word in self.command(name, test[1:])]
        return Running(name, process, environment, log, check)

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """`docker compose run --rm NAME WORDS...`."""
        (self.directory / "run" / name).mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            [
                str(self.directory / "bin/notify"),
                *(words or self.command(name, self.services[name]["command"])),
            ],
            cwd=ROOT,
            env=self.environment(name),
            text=True,
            capture_output=True,
            check=False,
        )


def stop(running: Sequence[Running], seconds: float) -> dict[str, int]:
    """SIGTERM to all at once, and their exit statuses. What does not end in time is killed, and shows as -9."""
    for it in running:
        if it.process.poll() is None:
            it.process.send_signal(signal.SIGTERM)
    statuses = {}
    for it in running:
        try:
            statuses[it.name] = it.process.wait(seconds)
        except subprocess.TimeoutExpired:
            it.process.kill()
            statuses[it.name] = it.process.wait()
    return statuses
