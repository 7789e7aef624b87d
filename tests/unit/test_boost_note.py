"""The note that instances of the machine share: whole, or what it was before."""

import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vswapfs.format import instance
from vswapfs.host import boost


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(instance, "RUN_DIRECTORY", str(tmp_path))
    path = tmp_path / "setting"
    path.write_text("15000")
    monkeypatch.setattr(boost, "SETTING", str(path))
    return path


@contextmanager
def nothing_can_be_written() -> Iterator[None]:
    """As on a full file system: a file can be made, and nothing be put into it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_where_it_cannot_be_written_it_stays_what_it_was(setting: Path) -> None:
    with nothing_can_be_written():
        boost.hold_off("one")
    assert setting.read_text() == "15000"
    boost.hold_off("one")
    with nothing_can_be_written():
        boost.hold_off("two")
    boost.hold_off("three")
    boost.let_go("one")
    assert setting.read_text() == "0"
    boost.let_go("three")
    assert setting.read_text() == "15000"
    assert list(setting.parent.iterdir()) == [setting]


def test_what_was_0_before_is_left_to_whoever_made_it_so(setting: Path) -> None:
    """An instance of another mount namespace, with a /run and a note of its own."""
    setting.write_text("0")
    boost.hold_off("one")
    setting.write_text("15000")  # it has gone
    boost.let_go("one")
    assert setting.read_text() == "15000"


def test_a_lock_that_somebody_keeps_holds_nothing_up(
    setting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boost, "_LOCK_WAIT_S", 0.05)
    boost.hold_off("one")
    kept = os.open(setting.parent, os.O_RDONLY)
    fcntl.flock(kept, fcntl.LOCK_SH)
    boost.let_go("one")
    assert setting.read_text() == "0"
    os.close(kept)
    boost.let_go("one")
    assert setting.read_text() == "15000"
