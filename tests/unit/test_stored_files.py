"""Stored files: read where they are, and nothing outside of their folder, however it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from channels.contract import Attachment, ChannelError, Refused, TryLater
from notify_tasks.attachments import MAX_SENT_BYTES, Attached
from notify_tasks.carried import described, gather
from notify_tasks.stored_files import StoredFiles

SECRET = b"canary: the key of the house"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shared folder, with a secret beside it."""
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_bytes(SECRET)
    shared = tmp_path / "shared"
    (shared / "terms").mkdir(parents=True)
    (shared / "terms" / "2026.pdf").write_bytes(b"%PDF terms")
    return shared


@pytest.fixture
def files(folder: Path) -> StoredFiles:
    return StoredFiles(str(folder))


def failure(work: Callable[[], object]) -> ChannelError:
    with pytest.raises(ChannelError) as failed:
        work()
    assert failed.value.__context__ is None  # the system's error would quote the path
    return failed.value


def read(files: StoredFiles, path: str, limit: int = 100) -> bytes:
    return files.read(path, limit, "attachment 1")


def test_a_file_of_the_folder_is_read(files: StoredFiles, folder: Path) -> None:
    assert read(files, "terms/2026.pdf") == b"%PDF terms"
    (folder / "Rechnung für Jörg.pdf").write_bytes(b"")
    assert read(files, "Rechnung für Jörg.pdf") == b""


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert read(StoredFiles(str(tmp_path / "current")), "terms/2026.pdf") == b"%PDF terms"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "terms/../../secret.txt",
        "/etc/passwd",
        "",
        ".",
        "..",
        "terms/",
        "terms//2026.pdf",
        "a\x00b",
    ],
)
def test_a_path_that_leaves_the_folder_is_refused_even_where_no_call_was_checked(
    files: StoredFiles, path: str
) -> None:
    failed = failure(lambda: read(files, path))
    assert (type(failed), failed.code) == (Refused, "attachment_not_a_file")


def test_an_absolute_path_is_refused_though_the_file_is_in_the_folder(
    files: StoredFiles, folder: Path
) -> None:
    assert isinstance(failure(lambda: read(files, str(folder / "terms" / "2026.pdf"))), Refused)


@pytest.mark.parametrize("to", ["../secret.txt", "../outside/secret.txt", "{}/secret.txt", "terms/2026.pdf"])
def test_a_link_is_never_followed(files: StoredFiles, folder: Path, to: str) -> None:
    (folder / "link.pdf").symlink_to(to.format(folder.parent))
    failed = failure(lambda: read(files, "link.pdf"))
    assert (type(failed), failed.code) == (Refused, "attachment_not_a_file")
    assert "link" in failed.detail


@pytest.mark.parametrize("to", ["../outside", "{}/outside", "..", "terms"])
def test_a_link_on_the_way_is_never_followed(files: StoredFiles, folder: Path, to: str) -> None:
    (folder / "way").symlink_to(to.format(folder.parent))
    failed = failure(lambda: read(files, "way/secret.txt"))
    assert (type(failed), failed.code) == (Refused, "attachment_not_a_file")


def test_a_link_that_appears_while_the_path_is_walked_is_not_followed(
    files: StoredFiles, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an attacker who swaps a folder for a link just after the worker has opened it,
    (folder / "terms" / "secret.txt").write_bytes(b"harmless")
    really_open = os.open

    def swapping(path: str, *args: int, **more: int) -> int:
        opened = really_open(path, *args, **more)
        if path == "terms":
            (folder / "terms").rename(folder / "terms.old")
            (folder / "terms").symlink_to("../outside")
        return opened

    monkeypatch.setattr(os, "open", swapping)

    # then the walk goes on in the folder it had opened.
    assert read(files, "terms/secret.txt") == b"harmless"


def test_what_is_no_plain_file_is_refused_at_once(files: StoredFiles, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    for path in ("pipe", "terms", "terms/2026.pdf/x"):
        failed = failure(lambda path=path: read(files, path))  # type: ignore[misc]
        assert (type(failed), failed.code) == (Refused, "attachment_not_a_file"), path


def test_a_missing_file_ends_the_delivery_and_tells_neither_path_nor_folder(
    files: StoredFiles, folder: Path
) -> None:
    for path in ("ann.secret/2026.pdf", "terms/ann.secret.pdf", "a" * 300):
        failed = failure(lambda path=path: read(files, path))  # type: ignore[misc]
        assert (type(failed), failed.code) == (Refused, "attachment_missing")
        assert "replay" in str(failed) or "mend" in str(failed)
        assert "secret" not in str(failed)
        assert str(folder) not in str(failed)


def test_the_size_is_bounded_and_a_file_that_fits_exactly_is_taken(files: StoredFiles) -> None:
    assert len(read(files, "terms/2026.pdf", limit=10)) == 10
    failed = failure(lambda: read(files, "terms/2026.pdf", limit=9))
    assert (type(failed), failed.code) == (Refused, "attachment_too_large")


def test_a_folder_or_file_that_cannot_be_opened_now_is_tried_later(
    files: StoredFiles, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unset = failure(lambda: read(StoredFiles(None), "terms/2026.pdf"))
    gone = failure(lambda: read(StoredFiles(str(folder / "unmounted")), "terms/2026.pdf"))
    really_open = os.open

    def denied(path: str, *args: int, **more: int) -> int:  # root, as which tests may run, is denied nothing
        if path == "2026.pdf":
            raise PermissionError(13, "Permission denied", path)
        return really_open(path, *args, **more)

    monkeypatch.setattr(os, "open", denied)
    unreadable = failure(lambda: read(files, "terms/2026.pdf"))

    for failed, said in ((unset, "set NOTIFY_ATTACHMENTS"), (gone, "ENOENT"), (unreadable, "EACCES")):
        assert (type(failed), failed.code) == (TryLater, "attachment_unreadable")
        assert said in failed.detail


def test_no_descriptor_is_left_open(files: StoredFiles, folder: Path) -> None:
    (folder / "link").symlink_to("terms")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("terms/2026.pdf", "terms/none", "none/none", "link/2026.pdf", "terms"):
        try:
            read(files, path)
        except ChannelError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- gathering ----------------------------------------------------------------------------------------


def nothing() -> dict[int, bytes]:
    raise AssertionError("the database was asked")


def test_bytes_come_from_the_call_the_database_and_the_folder(files: StoredFiles) -> None:
    call = (
        Attached("a", "x/a", content=b"call", size=4),
        Attached("b", "x/b", file="terms/2026.pdf"),
    )
    row = (*call[1:], Attached("c", "x/c", size=4))

    assert gather(call, nothing, files) == (
        Attachment("a", "x/a", b"call"),
        Attachment("b", "x/b", b"%PDF terms"),
    )
    assert gather(row, lambda: {1: b"kept"}, files)[1] == Attachment("c", "x/c", b"kept")


def test_bytes_that_were_deleted_end_the_delivery(files: StoredFiles) -> None:
    failed = failure(lambda: gather([Attached("c", "x/c", size=4)], dict, files))
    assert (type(failed), failed.code) == (Refused, "attachment_removed")
    assert "new notification" in failed.detail


def test_all_together_are_bounded(files: StoredFiles, folder: Path) -> None:
    with (folder / "large").open("wb") as file:
        file.truncate(MAX_SENT_BYTES)
    whole = [Attached("a", "x/a", file="large")]
    assert len(gather(whole, nothing, files)[0].content) == MAX_SENT_BYTES

    for more in (Attached("b", "x/b", content=b"1", size=1), Attached("b", "x/b", file="terms/2026.pdf")):
        failed = failure(lambda more=more: gather([*whole, more], nothing, files))  # type: ignore[misc]
        assert (type(failed), failed.code) == (Refused, "attachment_too_large")
        assert failed.detail.startswith("attachment 2:")


def test_templates_are_told_names_and_sizes() -> None:
    some = [Attached("a", "x/a", size=4), Attached("b", "x/b", file="f")]
    assert described(some, ()) == [{"name": "a", "size": 4}, {"name": "b", "size": None}]
    gathered = [Attachment("a", "x/a", b"1234"), Attachment("b", "x/b", b"12")]
    assert described(some, gathered) == [{"name": "a", "size": 4}, {"name": "b", "size": 2}]
