"""What a producer installs is `notify_tasks` and nothing that could harm the application it lands in."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

WORKER_SIDE = {"channels", "firebase_admin", "httpx", "jinja2", "psycopg", "requests", "twilio"}

HOST = """
from celery import Celery, current_app

def state(app):
    return current_app._get_current_object() is app, sorted(app.tasks), app.conf.task_serializer

"""


def test_the_wheel_ships_one_package_and_all_of_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"notify_tasks", f"{_stem(wheel)}.dist-info"}
    here = {
        path.relative_to(PROJECT).as_posix()
        for path in (PROJECT / "notify_tasks").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "notify_tasks/py.typed" in here
    assert here <= names  # the SQL of the migrations too


def test_the_wheels_needs_are_celery_and_redis(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about = Parser().parsestr(archive.read(f"{_stem(wheel)}.dist-info/METADATA").decode())
        commands = archive.read(f"{_stem(wheel)}.dist-info/entry_points.txt").decode()
    needs = about.get_all("Requires-Dist", [])
    assert [need for need in needs if "extra ==" not in need] == ["celery[redis]<5.8,>=5.7"]
    assert about["Requires-Python"] == ">=3.11"
    assert about["License-Expression"] == "Apache-2.0"
    assert {"postgres", "worker", "gateway", "embedded", "dev"} <= set(about.get_all("Provides-Extra", []))
    assert "notify = notify_tasks.cli:main" in commands


def test_no_pinned_file_names_a_registry_or_leaves_a_version_open() -> None:
    for path in sorted((PROJECT / "requirements").glob("*.txt")):
        lines = path.read_text().splitlines()
        assert not [line for line in lines if "==" not in line or "://" in line or line.startswith("-")], path
    demo, dev = (set(_lines(name)) for name in ("demo", "dev"))
    assert demo <= dev  # an environment for development serves the demo as it is


def test_django_channels_beside_it_stays_whole(in_producer: Callable[..., str]) -> None:
    said = in_producer("""
import base64, hashlib, importlib.metadata, importlib.util, json
import channels.layers, channels.routing, notify_tasks

def changed(name):
    for file in importlib.metadata.files(name):
        if file.hash and file.suffix == ".py":
            digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_binary()).digest())
            if digest.rstrip(b"=").decode() != file.hash.value:
                yield str(file)

ours = {str(file) for file in importlib.metadata.files("notify-tasks")}
theirs = {str(file) for file in importlib.metadata.files("channels")}
print(json.dumps({
    "changed": sorted(changed("channels")),
    "shared": sorted(ours & theirs),
    "elsewhere": sorted(f for f in ours if not f.startswith(("notify_tasks", "../../../bin/notify"))),
    "celeryconfig": importlib.util.find_spec("celeryconfig") is not None,
    "installed": notify_tasks.__file__,
}))
""")
    found = json.loads(said)
    assert found.pop("installed").endswith("site-packages/notify_tasks/__init__.py")
    assert found == {"changed": [], "shared": [], "elsewhere": [], "celeryconfig": False}


def test_importing_it_loads_nothing_of_the_workers_side(in_checkout: Callable[..., str]) -> None:
    said = in_checkout("""
import json
import notify_tasks
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
""")
    assert not WORKER_SIDE & set(json.loads(said))


def test_it_imports_where_nothing_of_the_workers_side_is_installed(in_producer: Callable[..., str]) -> None:
    said = in_producer("""
import importlib.util, json
import notify_tasks
print(json.dumps([name for name in ("jinja2", "psycopg", "requests") if importlib.util.find_spec(name)]))
""")
    assert json.loads(said) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("host = Celery('host', broker='memory://')", "", id="host-app-first"),
        pytest.param("", "host = Celery('host', broker='memory://')", id="host-app-later"),
    ],
)
def test_the_hosts_celery_app_stays_the_current_one(
    in_producer: Callable[..., str], before: str, after: str
) -> None:
    alone = in_producer(f"{HOST}host = Celery('host', broker='memory://')\nprint(state(host))")
    with_us = in_producer(f"{HOST}{before}\nimport notify_tasks\n{after}\nprint(state(host))")
    assert with_us == alone
    assert alone.startswith("(True, ")


def test_without_a_host_app_none_is_made_current(in_producer: Callable[..., str]) -> None:
    said = in_producer("""
import notify_tasks
from celery import _state
print(_state.default_app, getattr(_state._tls, "current_app", None))
""")
    assert said.split() == ["None", "None"]


def _stem(wheel: Path) -> str:
    return "-".join(wheel.name.split("-")[:2])


def _lines(name: str) -> list[str]:
    return (PROJECT / "requirements" / f"{name}.txt").read_text().splitlines()
