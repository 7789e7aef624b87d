"""Chooses the corpus to be kept: few small inputs that reach what all of them reach.

Owns the choice. What an input reaches is seen by tracing lines of vswapfs, so that it does not
depend on the fuzzer. Never keeps an input that is a finding: that one is for a test of its own.
"""

import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final

import vswapfs
from fuzzing import limits, targets

FILE_MAX_BYTES: Final = 512
FILES_MAX: Final = 40

_PACKAGE: Final = str(Path(vswapfs.__file__).parent)
Line = tuple[str, int, int]


def keep(name: str, work: Path) -> int:
    """Replace the kept corpus of a target; returns the number of files."""
    kept = targets.CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    inputs = {data for path in [*kept.iterdir(), *_files(work)] if (data := path.read_bytes())}
    inputs |= set(targets.seeds(name))
    run = targets.runner(name)
    small = sorted((data for data in inputs if len(data) <= FILE_MAX_BYTES), key=_order)
    run(b"")  # what happens only once a process is nobody's merit
    reached = {data: _reached(run, data) for data in small}
    chosen: list[bytes] = []
    covered: set[Line] = set()
    while len(chosen) < FILES_MAX:
        best = max(small, key=lambda data: len(reached[data] - covered), default=b"")
        if not best or reached[best] <= covered:
            break
        covered |= reached[best]
        chosen.append(best)
    for path in kept.iterdir():
        path.unlink()
    for number, data in enumerate(sorted(chosen, key=_order)):
        (kept / f"{number:02}").write_bytes(data)
    return len(chosen)


def _files(work: Path) -> list[Path]:
    return [path for path in work.iterdir() if path.is_file()] if work.exists() else []


def _order(data: bytes) -> tuple[int, bytes]:
    return len(data), data


def _reached(run: targets.Run, data: bytes) -> set[Line]:
    """Steps from one line to the next in vswapfs."""
    found: set[Line] = set()

    def trace(frame: FrameType, _event: str, _arg: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(_PACKAGE):
            return None
        before = 0

        def line(frame: FrameType, _event: str, _arg: Any) -> Any:
            nonlocal before
            found.add((path, before, frame.f_lineno))
            before = frame.f_lineno
            return line

        return line

    sys.settrace(trace)
    try:
        with limits.time(60):
            run(data)
    finally:
        sys.settrace(None)
    return found
