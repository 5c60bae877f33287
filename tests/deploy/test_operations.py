"""docs/operations.md: what somebody copies from it at night is understood, and every link in it leads somewhere."""

from __future__ import annotations

import re
import shlex

import pytest
from deploy.compose import read
from deploy.kustomize import BASE, build
from deploy.runbook import FILE, commands, sections
from deploy.words import parse

TEXT = FILE.read_text()
PROCEDURES = (
    "Scale a queue", "Deploy without loss", "Rotate secrets", "Redis lost", "PostgreSQL failover", "Provider outage",
    "Poison message", "Stuck digest", "In-doubt pile",
)  # fmt: skip
VARIABLES = dict.fromkeys(
    ("REDIS_PASSWORD", "POSTGRES_PASSWORD", "FLOWER_PASSWORD", "GRAFANA_PASSWORD"), "password"
)


def anchor(heading: str) -> str:
    """As GitHub makes one of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_every_command_is_one_that_notify_understands(line: str) -> None:
    words = [word for word in shlex.split(line.partition("&&")[0], comments=True) if word != "..."]
    assert words[0] == "notify"
    parse(words[1:])


def test_a_command_that_does_not_exist_would_be_found() -> None:
    for wrong in (
        ["pause", "--quue", "email"],
        ["replay", "--were", "x"],
        ["in-doubt", "resolve", "1", "--as", "lost"],
    ):
        with pytest.raises(AssertionError):
            parse(wrong)


def test_there_is_a_procedure_for_each_bad_night() -> None:
    headings = {it.lstrip("# ") for it in sections()}
    assert set(PROCEDURES) <= headings


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        file, _, name = target.partition("#")
        headings = re.findall(r"^#{2,3} (.+)$", (FILE.parent / (file or FILE.name)).read_text(), re.MULTILINE)
        assert not name or name in map(anchor, headings), target


def test_services_that_it_names_are_those_of_compose_kubernetes_and_systemd() -> None:
    services = read(VARIABLES)["services"]
    for name in re.findall(r"docker compose \w+ (?:--\w+ )*?(?:--scale )?([a-z][\w-]+)", TEXT):
        assert name in services, name
    objects = {f"{it['kind'].lower()}/{it['metadata']['name']}" for it in build(BASE)}
    for name in re.findall(r"\b((?:deployment|deploy|job)/[a-z-]+)(?![\w/])", TEXT):
        if not name.startswith("deploy/kubernetes"):
            assert name.replace("deploy/", "deployment/") in objects, name
    units = {
        it.name.removesuffix(".service") for it in (FILE.parents[1] / "deploy/systemd").glob("*.service")
    }
    for line in re.findall(r"^systemctl \w+ (.+?)(?:  +#.*)?$", TEXT, re.MULTILINE):
        for unit in shlex.split(line):
            base = unit.removesuffix(".service")
            assert re.sub(r"@.*", "@", base) in units, unit
