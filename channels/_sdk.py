"""SDKs that are installed for those who use them, and imported when they are first used."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from channels.contract import Misconfigured
from channels.http import Options

_SdkT = TypeVar("_SdkT")


class LazySdk(Generic[_SdkT]):
    """Imports an SDK once, whichever thread needs it first: they are heavy, and few processes need them.

    Args:
        package: its top-level name.
        load: imports it.
        extra: of ours, that installs it.
    """

    def __init__(self, package: str, load: Callable[[], _SdkT], *, extra: str) -> None:
        self._package = package
        self._extra = extra
        self._load = load
        self._lock = threading.Lock()
        self._loaded: _SdkT | None = None

    def get(self) -> _SdkT:
        """The SDK. The first time, this takes from a quarter of a second to some seconds.

        Raises:
            Misconfigured: it cannot be imported.
        """
        problem = ""
        with self._lock:
            if self._loaded is not None:
                return self._loaded
            try:
                self._loaded = self._load()
            except Exception as error:  # noqa: BLE001 - whatever a broken package raises, nothing was sent
                problem = type(error).__name__
            else:
                return self._loaded
        raise Misconfigured(
            "sdk", f"the package {self._package} cannot be imported ({problem}); {remedy(self._extra)}"
        )

    def look(self, given: Options) -> None:
        """Look whether it is installed, without importing it.

        Raises:
            Misconfigured: it is not; the sentence says what to type.
        """
        need(given, self._package, extra=self._extra)


def need(given: Options, package: str, *, extra: str) -> None:
    """Look whether a package is installed, without importing it.

    Args:
        given: the provider's options.
        package: its top-level name.
        extra: of ours, that installs it.

    Raises:
        Misconfigured: it is not; the sentence says what to type.
    """
    if importlib.util.find_spec(package) is None:
        raise given.wrong("use", f"needs the package {package}; {remedy(extra)}")


def remedy(extra: str) -> str:
    """What to type, for the end of a sentence."""
    return f"type pip install 'notify-tasks[worker,{extra}]'"
