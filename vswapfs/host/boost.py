"""vm.watermark_boost_factor: 0 as long as an instance is up, as it was when none is any more.

Owns that setting and the note /run/vswapfs/.watermark_boost_factor: what it was, and who needs it
to be 0. With it the kernel raises its low-memory marks until kswapd has made room, and that memory
is nobody's (measured: docs/swap-safety.md). Always holds: the note is there before the setting
changes and goes after it is put back, so an instance that died is made up for by `off`.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vswapfs.format import instance

SETTING: Final = "/proc/sys/vm/watermark_boost_factor"
_NOTE: Final = ".watermark_boost_factor"
_LOCK_WAIT_S: Final = 2.0


def hold_off(name: str) -> None:
    """The instance needs it to be 0. Where the machine does not let us, it stays as it is."""
    with contextlib.suppress(OSError), _locked() as note:
        before, *names = _noted(note) if note.exists() else [_read()]
        _write(note, [before, *{*names, name}])
        Path(SETTING).write_text("0")


def let_go(name: str) -> None:
    """The instance is no more; with the last one it is put back."""
    with contextlib.suppress(OSError), _locked() as note:
        before, *names = _noted(note)
        names = [each for each in names if each != name]
        if names:
            _write(note, [before, *names])
        else:
            if before != "0":  # else it was nobody's of ours: an instance with another /run has it
                Path(SETTING).write_text(before)
            note.unlink()


def _noted(note: Path) -> list[str]:
    return note.read_text().split() or [_read()]


def _write(note: Path, words: list[str]) -> None:
    """All of it or nothing: /run may be full, and whoever writes may be killed."""
    fresh = note.with_suffix(".new")
    try:
        fresh.write_text(" ".join(words))
        fresh.rename(note)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _read() -> str:
    return Path(SETTING).read_text().strip()


@contextlib.contextmanager
def _locked() -> Iterator[Path]:
    """Raises BlockingIOError if somebody keeps the lock, a process of ours that is stopped for
    example: no start or end waits for that."""
    directory = os.open(instance.RUN_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline_s = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise
            time.sleep(0.01)
        yield Path(instance.RUN_DIRECTORY, _NOTE)
    finally:
        os.close(directory)
