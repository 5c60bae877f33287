"""Finds the wires: every module of this package that has a `WIRE`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from notify_tasks.sandbox import wires as package
from notify_tasks.sandbox.wires.wire import Request, Wire


@cache
def wires() -> Mapping[str, Wire]:
    """Every wire by its name, sorted."""
    modules = (
        importlib.import_module(f"{package.__name__}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
    )
    made: list[Wire] = [module.WIRE for module in modules if hasattr(module, "WIRE")]
    return MappingProxyType({wire.name: wire for wire in sorted(made, key=lambda it: it.name)})


def wire_for(request: Request) -> Wire | None:
    """The wire that takes a request; None where it is nobody's."""
    return next((wire for wire in wires().values() if wire.takes(request)), None)
