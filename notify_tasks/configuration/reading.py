"""Reads a configuration: the file, its overlay for this environment, then variables."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from notify_tasks.configuration import checking, secrets
from notify_tasks.configuration.layers import Layers, from_environment, read_file
from notify_tasks.configuration.model import Configuration, Form, Pool, ProviderSettings, Rules
from notify_tasks.configuration.origins import BadConfiguration, Origin, Problem, nearest

VERSION_LENGTH = 12


def overlay_of(path: Path, env: str) -> Path:
    """The overlay of a file: `notify.prod.toml` of `notify.toml`."""
    return path.with_name(f"{path.stem}.{env}{path.suffix}")


def read(path: Path, env: str | None, environment: Mapping[str, str]) -> Configuration:
    """Read a configuration.

    Args:
        path: the base file.
        env: names the overlay, which must be there; None for none.
        environment: the variables.

    Raises:
        BadConfiguration: with every problem there is. Secrets are not looked at: see `Pools`.
    """
    layers = Layers()
    problems: list[Problem] = []
    content = hashlib.sha256()
    files = [path] if env is None else [path, overlay_of(path, env)]
    for file in files:
        try:
            values, origins, raw = read_file(file)
        except FileNotFoundError:
            problems.append(_absent(file, path, env))
        except BadConfiguration as error:
            problems += error.problems
        else:
            layers.origins.setdefault((), origins[()])
            layers.lay(values, origins)
            content.update(b"%d:%b" % (len(raw), raw))
    if problems:  # what else there is to say would be guesses
        raise BadConfiguration(problems)
    overrides, variables, problems = from_environment(layers.values, environment)
    layers.lay(overrides, variables)
    return _configuration(
        layers,
        problems,
        files=tuple(files),
        variables=tuple(sorted({origin.source for origin in variables.values()})),
        version=content.hexdigest()[:VERSION_LENGTH],
    )


def of_document(document: Mapping[str, Any], source: str = "notify.toml") -> Configuration:
    """A configuration that stands in no file.

    Args:
        document: as `tomllib` would return it.
        source: what messages call it.

    Raises:
        BadConfiguration: with every problem there is.
    """
    layers = Layers()
    layers.origins[()] = Origin(source)
    layers.lay(document, {})
    return _configuration(layers, [])


def _configuration(layers: Layers, problems: list[Problem], **more: Any) -> Configuration:
    form, found = checking.validate(layers)
    if form is None or problems:
        raise BadConfiguration(_sorted([*problems, *found], layers))
    return Configuration(
        providers={name: _provider(name, form) for name in form.providers},
        pools={
            channel: Pool(tuple((it.provider, it.weight) for it in table.pool), table.sandbox)
            for channel, table in form.channels.items()
        },
        origins=layers.origins,
        warnings=tuple(checking.warnings(layers, form)),
        rules={
            channel: Rules(table.per_recipient, table.countries) for channel, table in form.channels.items()
        },
        **more,
    )


def _provider(name: str, form: Form) -> ProviderSettings:
    it = form.providers[name]
    return ProviderSettings(name, it.use, it.timeout, it.rate, it.enabled, it.model_extra or {})


def _sorted(problems: list[Problem], layers: Layers) -> list[Problem]:
    """By file and line, each once."""
    sources = list(dict.fromkeys(origin.source for origin in layers.origins.values()))

    def place(problem: Problem) -> tuple[int, int]:
        source = problem.origin.source
        return (sources.index(source) if source in sources else len(sources), problem.origin.line or 0)

    return sorted(dict.fromkeys(problems), key=place)


def _absent(file: Path, base: Path, env: str | None) -> Problem:
    if file == base:
        return Problem(
            Origin(str(file)),
            "",
            "there is no such file",
            "Type this in the repository's folder, or set NOTIFY_CONFIG",
        )
    there = [
        name
        for each in sorted(base.parent.glob(f"{base.stem}.*{base.suffix}"))
        if (name := each.name[len(base.stem) + 1 : -len(base.suffix) or None])
    ]
    near = nearest(str(env), there, example="NOTIFY_ENV={}")
    remedy = near if near.startswith("Did") else "Add the file (it may be empty), or unset NOTIFY_ENV"
    return Problem(Origin(str(file)), "", f"there is no such file, and NOTIFY_ENV is {env!r}", remedy)


def secret_files(configuration: Configuration, environment: Mapping[str, str]) -> list[Path]:
    """The files from which secrets of a configuration are read."""
    return [
        path
        for provider in configuration.providers.values()
        for path in secrets.files(provider.options, environment)
    ]
