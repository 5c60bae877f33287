"""Compiles the files of one snapshot, and finds what is wrong in them before anybody is sent anything."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Final

from jinja2 import meta, nodes
from jinja2.exceptions import TemplateSyntaxError

from notify_tasks.templating.engine import Environment, Sources
from notify_tasks.templating.errors import Problem
from notify_tasks.templating.folder import LAYOUT

VARIABLES: Final = ("payload", "recipient", "attachments", "unsubscribe_url")
"""What a template is given."""

_UNSAFE_HTML: Final = (
    (
        re.compile(r"<[a-zA-Z][^<>]*=\s*\{\{"),
        "a value stands in an attribute without quotes",
        'Put quotes around it: title="{{ ... }}"',
    ),
    (
        re.compile(
            r"\b(?:href|src|action|formaction|background|poster)\s*=\s*[\"']\s*\{\{(?![^}]*\|\s*link\b)",
            re.IGNORECASE,
        ),
        "a value is a whole link and is not checked",
        'Write | link after it: href="{{ payload.url | link }}"',
    ),
    (
        re.compile(r"<[a-zA-Z][^<>]*\s(?:on\w+|style)\s*=\s*(?:\"[^\"]*\{\{|'[^']*\{\{)", re.IGNORECASE),
        "a value stands in an event handler or in style",
        "Values are for text, links and plain attributes: use {% if %} to choose a class",
    ),
    (
        re.compile(r"<(script|style)\b(?:(?!</\1).)*\{\{", re.IGNORECASE | re.DOTALL),
        "a value stands in script or style",
        "Values are for text, links and plain attributes: use {% if %} to choose a class",
    ),
    (
        re.compile(r"@import\b|<link\b[^>]*stylesheet", re.IGNORECASE),
        "styles are fetched from elsewhere",
        "Put the rules into _layout/mail.css: nothing is fetched while rendering",
    ),
)
"""Places in which HTML escaping is not enough, or that fetch something."""


class Compiler:
    """Compiles files one by one, each once for each kind.

    Args:
        sources: the files.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._seen: set[tuple[str, str]] = set()

    def compile(self, environment: Environment, file: str) -> Iterator[Problem]:
        """Compile a file and all that it includes or extends; what is wrong comes out."""
        if (environment.mode, file) in self._seen:
            return
        self._seen.add((environment.mode, file))
        source, _, _ = self._sources.get_source(environment, file)
        shown = self._sources.shown(file)
        try:
            tree = environment.parse(source, file, shown)
            unknown = meta.find_undeclared_variables(tree) - _defined(tree) - set(VARIABLES)
            environment.get_template(file)
        except TemplateSyntaxError as error:
            problem = (error.message or "Jinja cannot read it").rstrip(".")
            yield Problem(shown, error.lineno, problem, _syntax_remedy(problem, environment))
            return
        if environment.mode == "html":
            yield from _lint(source, shown)
        # A partial may use what the file that includes it has set.
        if not file.startswith(f"{LAYOUT}/") and not file.rpartition("/")[2].startswith("_"):
            yield from _unknown_names(tree, unknown, shown)
        for node in tree.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
            yield from self._follow(environment, node, shown)

    def _follow(self, environment: Environment, node: nodes.Node, shown: str) -> Iterator[Problem]:
        target = node.template  # type: ignore[attr-defined]  # all four kinds have it
        name = target.value if isinstance(target, nodes.Const) else None
        if not isinstance(name, str):
            yield Problem(
                shown, node.lineno, "the name of another template is computed", "Write it out, in quotes"
            )
        elif name not in self._sources.files:
            near = difflib.get_close_matches(name, self._sources.files, n=1)
            remedy = (
                f"Did you mean {near[0]!r}?"
                if near
                else f"Put it into {LAYOUT}/, and name it with that folder"
            )
            yield Problem(shown, node.lineno, f"there is no template {name!r}", remedy)
        else:
            yield from self.compile(environment, name)


def _syntax_remedy(problem: str, environment: Environment) -> str:
    found = re.fullmatch(r"No filter named '(\w+)'.*", problem)
    if found is None:
        return "Mend the line"
    if found[1] == "safe":
        return "Put the markup into the template: values are always escaped"
    near = difflib.get_close_matches(found[1], environment.filters, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Filters are: {', '.join(sorted(environment.filters))}"


def _defined(tree: nodes.Template) -> set[str]:
    """What the file itself defines: Jinja looks at each block alone, blocks see what stands above."""
    found = {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    found |= {node.name for node in tree.find_all(nodes.Macro)}
    found |= {node.target for node in tree.find_all(nodes.Import)}
    for node in tree.find_all(nodes.FromImport):
        found |= {name if isinstance(name, str) else name[1] for name in node.names}
    return found


def _unknown_names(tree: nodes.Template, unknown: set[str], shown: str) -> Iterator[Problem]:
    for name in sorted(unknown):
        lines = [node.lineno for node in tree.find_all(nodes.Name) if node.name == name]
        near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.75)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Write payload.{name}"
        yield Problem(shown, min(lines, default=1), f"nothing is called {name!r} here", remedy)


def _lint(source: str, shown: str) -> Iterator[Problem]:
    for pattern, problem, remedy in _UNSAFE_HTML:
        for found in pattern.finditer(source):
            yield Problem(shown, source.count("\n", 0, found.end()) + 1, problem, remedy)
