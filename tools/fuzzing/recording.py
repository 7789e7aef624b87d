"""Recordings: what replay and the view make of any file, also one whose checksums are right.

Samples come out, or a RecordingError says in which line it ends. Every sample that comes out can be
printed, and drawn by `top`.
"""

import contextlib
import json
import os
import random
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from fuzzing import values
from fuzzing.source import Source
from vswapfs.core import stats
from vswapfs.ctl import feed, screen, top
from vswapfs.ctl.history import History
from vswapfs.errors import RecordingError
from vswapfs.format import recording
from vswapfs.format.histogram import BUCKETS
from vswapfs.format.message import Histogram, Outcome, Sample, Stats, Status, TierStatus
from vswapfs.host.region import memory_file

SEEDS: Final = [bytes([kind]) + random.Random(kind).randbytes(50) for kind in range(12)]

_WORDS: Final = (
    "pool", "disk", "same", "zero", "empty", "ok", "failing", "\x1b[2J", "", "é" * 50,
    "latency.load",
    *(field.key for field in stats.FIELDS),
)  # fmt: skip
_CHANGES_MAX: Final = 6


def _sample(number: int) -> Sample:
    """As a daemon tells it."""
    figures: dict[str, int | float] = {field.key: 7 * number for field in stats.FIELDS}
    counts = [number if bucket % 9 == 0 else 0 for bucket in range(BUCKETS)]
    return Sample(
        1_700_000_000.5 + number,
        Status(
            name="eyes0", pid=2, version="0.1.0", uptime_s=7.5, mountpoint="/run/x",
            swap_priority=7, swap_used_bytes=1 << 20, loop_device="/dev/loop1",
            size_bytes=1 << 30, used_bytes=1 << 29,
            pages={"empty": 100, "zero": 2, "same": 3, "pool": 4, "disk": 5}, ratio=2.5,
            saved_bytes=1 << 20, pool_limit_bytes=1 << 28, pool_used_bytes=1 << 27,
            same_filled="same", hardening=[Outcome("mlockall", False, "EPERM")],
            tiers=[TierStatus("/t", "u", "ok", 1 << 30, 1 << 20, 1, 2, 3, 4, 5, 6, "")],
            survival="resend", supervisor_pid=1, worker_pid=2, standby_pid=None, takeovers=0,
            last_pause_ms=None,
        ),
        Stats(figures, {each.key: Histogram(counts, number) for each in stats.HISTOGRAMS}),
    )  # fmt: skip


_CONTENT: Final = [
    msgspec.to_builtins(recording.Header(recording.VERSION, "eyes0", 1.0)),
    *(msgspec.to_builtins(_sample(number)) for number in range(3)),
    msgspec.to_builtins(recording.End(3)),
]
_fd: Final = memory_file("fuzz", 0)
_PATH: Final = f"/proc/self/fd/{_fd}"


def run(data: bytes) -> None:
    os.ftruncate(_fd, 0)
    os.pwrite(_fd, _file(Source(data)), 0)
    history = History()
    with contextlib.suppress(RecordingError):
        header, samples = feed.read(_PATH, "fuzz")
        shown = screen.Shown(header.interval_s, source="fuzz")
        for sample in samples:
            msgspec.json.encode(top._as_object(sample))
            history.add(sample)
            drawn = screen.draw(history, shown, 80, 23).plain.replace("\n", "")
            assert drawn.isprintable(), "it would command the terminal"


def _file(source: Source) -> bytes:
    """A recording with changes in its contents, and then in its bytes."""
    raw = source.byte()
    if raw % 8 == 1:
        return source.rest()
    lines = json.loads(json.dumps(_CONTENT))
    for _ in range(source.number(0, _CHANGES_MAX)):
        if lines:
            _replace(source, lines)
    if raw % 8 == 2 and lines:
        lines.insert(source.number(0, len(lines)), source.choice(lines))
    encoded = []
    for number, content in enumerate(lines):
        text = msgspec.json.encode(content)
        if source.one_in(24):
            text = values.mutilate(source, text).replace(b"\n", b" ")
        encoded.append(b"%016x %b\n" % (xxh3_64_intdigest(text, seed=number), text))
    whole = b"".join(encoded)
    if raw % 8 == 3 and whole:
        at = source.number(0, len(whole) - 1)
        return whole[:at] + source.take(3) + whole[at + source.number(0, 3) :]
    return whole[: source.number(0, len(whole))] if raw % 8 == 4 else whole


def _replace(source: Source, lines: list[Any]) -> None:
    """Go down from a line to some value, and put another in its place, or take it away."""
    holder: Any = lines
    key: Any = source.number(0, len(lines) - 1)
    while isinstance(holder[key], dict | list) and holder[key] and not source.one_in(8):
        holder = holder[key]
        key = source.number(0, len(holder) - 1)
        if isinstance(holder, dict):
            key = list(holder)[key]
    if source.one_in(16):
        del holder[key]
        return
    kind = type(holder[key])
    due = kind if kind in (bool, int, float, str) else type(None)
    holder[key] = values.value(source, due, _WORDS)
