"""How an SDK is imported: once, by whoever needs it first."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from channels._sdk import LazySdk
from channels.contract import Misconfigured


def test_many_threads_import_an_sdk_once() -> None:
    loads: list[int] = []
    go_on = threading.Event()

    def load() -> object:
        loads.append(threading.get_ident())
        go_on.wait(30)
        return object()

    sdk = LazySdk("json", load, extra="x")
    with ThreadPoolExecutor(4) as pool:
        needed = [pool.submit(sdk.get) for _ in range(4)]
        ends = time.monotonic() + 0.3  # as long as a second import may take to begin, if there were one
        while len(loads) < 2 and time.monotonic() < ends:
            time.sleep(0.005)
        go_on.set()
        got = {each.result(30) for each in needed}

    assert len(loads) == len(got) == 1


def test_an_sdk_that_cannot_be_imported_is_named_and_tried_again() -> None:
    outcomes: list[object] = [ImportError("half installed"), "the SDK"]

    def load() -> object:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    sdk = LazySdk("acme", load, extra="x")

    with pytest.raises(
        Misconfigured, match=r"^sdk: the package acme cannot be imported \(ImportError\)"
    ) as caught:
        sdk.get()
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert sdk.get() == "the SDK"
