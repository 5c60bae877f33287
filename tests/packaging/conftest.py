"""The wheel as a producer gets it: built once, installed once beside Django Channels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
HOST_PACKAGES = ["channels==4.3.2", "django"]


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def producer_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel, what it needs, and Django Channels; nothing more."""
    venv = tmp_path_factory.mktemp("producer") / "venv"
    python = venv / "bin" / "python"
    what: list[str | Path] = ["--constraint", PROJECT / "requirements" / "dev.txt", *HOST_PACKAGES, wheel]
    if uv := shutil.which("uv"):
        _run(uv, "venv", "--quiet", "--python", sys.executable, venv)
        _run(uv, "pip", "install", "--quiet", "--python", python, *what)
    else:
        _run(sys.executable, "-m", "venv", "--without-pip", venv)
        _run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", *what)
    return python


@pytest.fixture
def in_producer(producer_python: Path, tmp_path: Path) -> Callable[..., str]:
    """Run code as a producer would: in its environment, far from the checkout; returns what it printed."""

    def run(code: str, **environment: str) -> str:
        return run_python(producer_python, code, tmp_path, environment)

    return run


@pytest.fixture
def in_checkout(tmp_path: Path) -> Callable[..., str]:
    """Run code in the development environment, where all that must not be imported is at hand."""

    def run(code: str, **environment: str) -> str:
        return run_python(
            Path(sys.executable),
            f"import sys\nsys.path.insert(0, {str(PROJECT)!r})\n{code}",
            tmp_path,
            environment,
        )

    return run


def run_python(python: Path, code: str, folder: Path, environment: dict[str, str]) -> str:
    """Run code in a process of its own that warns of nothing; returns what it printed."""
    done = subprocess.run(
        [python, "-I", "-W", "error", "-c", code],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
