"""A memory workload whose every byte is known: fill, verify, touch at random, verify again.

Owns the contents of its pages: each is a pure function of (seed, page number, version). Never
samples: a page is compared with all of its 4096 bytes, each time. Always holds: two pages of kind
text or random differ, whatever their number or version; and a page carries its number and version
at its begin, its end and seven places between, so one that comes back in another's place, or
older than it should be, or put together from two, is noticed.

    python tools/workload.py --size 1G --mix zero:1,same:1,text:6,random:2 --touches 20000
"""

import argparse
import json
import mmap
import random
import string
import struct
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vswapfs.units import PAGE_BYTES, parse_size_bytes

KINDS = ("zero", "same", "text", "random")
DEFAULT_MIX = "zero:1,same:1,text:6,random:2"

# A page of text or random bytes is stamp, piece, stamp, ..., piece, stamp: one bytes.join, which
# is what makes filling and verifying faster than any swap. The pieces are a window into a list
# made at the start.
PIECES_PER_PAGE = 8
STAMP = struct.Struct("<IIQ")  # page number, version, hash
PIECE_BYTES = (PAGE_BYTES - (PIECES_PER_PAGE + 1) * STAMP.size) // PIECES_PER_PAGE
WINDOWS = 4096
PATTERNS = 64

VOCABULARY_WORDS = 36  # under LZ4: 100 words give 2.1:1, 200 words 1.7:1
REPORTED_MISMATCHES = 8
PROGRESS_INTERVAL_S = 0.2
CHUNK_PAGES = 256  # between two looks at the clock

_U64 = (1 << 64) - 1


def parse_mix(text: str) -> dict[str, int]:
    """Read `zero:1,text:6` and return the weight of each kind."""
    mix = {}
    for part in text.split(","):
        kind, _, weight = part.partition(":")
        if kind not in KINDS or not weight.isdecimal():
            raise ValueError(f"{part!r}: a mix is KIND:WEIGHT,... with kinds {', '.join(KINDS)}")
        mix[kind] = int(weight)
    if not any(mix.values()):
        raise ValueError(f"{text!r}: at least one kind must have a weight above 0")
    return mix


class PageContents:
    """What every page holds, by number and version."""

    def __init__(self, seed: int, mix: Mapping[str, int]) -> None:
        rng = random.Random(seed)
        self._salt = rng.getrandbits(64)
        self._kinds = [kind for kind, weight in mix.items() for _ in range(weight)]
        piece_count = WINDOWS + PIECES_PER_PAGE
        self._pieces = {
            "text": _cut(_text(rng, piece_count * PIECE_BYTES)),
            "random": _cut(rng.randbytes(piece_count * PIECE_BYTES)),
        }
        zero = bytes(PAGE_BYTES)
        patterns = [rng.getrandbits(64) | 1 for _ in range(PATTERNS)]
        self._filled = {
            "zero": [zero] * PATTERNS,
            "same": [struct.pack("<Q", word) * (PAGE_BYTES // 8) for word in patterns],
        }

    def kind(self, number: int, version: int) -> str:
        """Return the kind, which changes with the version, so that pages wander between states."""
        return self._kind_of(self._hash(number, version))

    def page(self, number: int, version: int) -> bytes:
        hashed = self._hash(number, version)
        kind = self._kind_of(hashed)
        if filled := self._filled.get(kind):
            return filled[hashed >> 16 & (PATTERNS - 1)]
        window = hashed >> 52  # 12 bits: below WINDOWS
        pieces = self._pieces[kind][window : window + PIECES_PER_PAGE]
        stamp = STAMP.pack(number, version, hashed)
        return stamp.join((b"", *pieces, b""))

    def identify(self, data: bytes) -> str:
        """Say whose contents these are; for the report of a mismatch."""
        if not any(data):
            return "zeros"
        number, version, _ = STAMP.unpack_from(data)
        if data == self.page(number, version):
            return f"page {number} version {version}"
        return "no page's contents"

    def _hash(self, number: int, version: int) -> int:
        mixed = (number * 0x9E3779B97F4A7C15 + version * 0xC2B2AE3D27D4EB4F + self._salt) & _U64
        mixed = (mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9 & _U64
        return mixed ^ mixed >> 32

    def _kind_of(self, hashed: int) -> str:
        return self._kinds[(hashed & 0xFFFF) % len(self._kinds)]


def _cut(data: bytes) -> list[bytes]:
    return [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]


def _text(rng: random.Random, length_bytes: int) -> bytes:
    """Words drawn evenly from a small vocabulary: about 2.5:1 under LZ4, a page at a time."""
    words = [
        "".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 11)))
        for _ in range(VOCABULARY_WORDS)
    ]
    # At least four bytes a word, the blank included.
    return " ".join(rng.choices(words, k=length_bytes // 4 + 1)).encode()[:length_bytes]


class Mismatch(NamedTuple):
    phase: str
    page: int
    version: int
    kind: str
    offset: int
    """Of the first wrong byte, from the begin of the memory."""
    wrong_bytes: int
    found: str


class PhaseTime(NamedTuple):
    phase: str
    seconds: float
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        pages = max(self.bytes // PAGE_BYTES, 1)
        return {
            "phase": self.phase,
            "seconds": round(self.seconds, 4),
            "bytes": self.bytes,
            "mb_per_s": round(self.bytes / self.seconds / 1e6, 1) if self.seconds else None,
            "us_per_page": round(self.seconds / pages * 1e6, 2),
        }


Report = Callable[[str, int, int, float], None]
"""Told of progress: phase, bytes done, bytes in all, seconds since the phase began."""


class Workload:
    """The memory, the version that each of its pages should have, and what was found wrong."""

    def __init__(self, contents: PageContents, size_bytes: int, report: Report) -> None:
        self.contents = contents
        self.pages = size_bytes // PAGE_BYTES
        self.memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Without it a huge page goes out and comes back in one piece.
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            with suppress(OSError):  # a kernel without huge pages
                self.memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.versions = array("I", bytes(4 * self.pages))
        self.phases: list[PhaseTime] = []
        self.mismatch_count = 0
        self.mismatches: list[Mismatch] = []
        self._report = report

    def fill(self) -> None:
        memory, page_of = self.memory, self.contents.page
        for chunk in self._timed("fill", self.pages):
            for number in chunk:
                start = number * PAGE_BYTES
                memory[start : start + PAGE_BYTES] = page_of(number, 0)

    def verify(self, phase: str) -> None:
        memory, page_of, versions = self.memory, self.contents.page, self.versions
        for chunk in self._timed(phase, self.pages):
            for number in chunk:
                start = number * PAGE_BYTES
                found = memory[start : start + PAGE_BYTES]
                expected = page_of(number, versions[number])
                if found != expected:
                    self._note(phase, number, expected, found)

    def touch(self, rng: random.Random, count: int) -> None:
        """Verify pages at random, and give every second one its next version."""
        memory, page_of, versions = self.memory, self.contents.page, self.versions
        for chunk in self._timed("touch", count):
            for turn in chunk:
                number = rng.randrange(self.pages)
                start = number * PAGE_BYTES
                found = memory[start : start + PAGE_BYTES]
                expected = page_of(number, versions[number])
                if found != expected:
                    self._note("touch", number, expected, found)
                if turn % 2:
                    versions[number] += 1
                    memory[start : start + PAGE_BYTES] = page_of(number, versions[number])

    def _timed(self, phase: str, count: int) -> Iterator[range]:
        """Hand out 0..count in chunks; report progress and the time taken."""
        total_bytes = count * PAGE_BYTES
        began = reported = time.perf_counter()
        self._report(phase, 0, total_bytes, 0.0)
        for start in range(0, count, CHUNK_PAGES):
            yield range(start, min(start + CHUNK_PAGES, count))
            now = time.perf_counter()
            if now - reported >= PROGRESS_INTERVAL_S and start + CHUNK_PAGES < count:
                reported = now
                self._report(phase, (start + CHUNK_PAGES) * PAGE_BYTES, total_bytes, now - began)
        seconds = time.perf_counter() - began
        self._report(phase, total_bytes, total_bytes, seconds)
        self.phases.append(PhaseTime(phase, seconds, total_bytes))

    def _note(self, phase: str, number: int, expected: bytes, found: bytes) -> None:
        self.mismatch_count += 1
        if len(self.mismatches) == REPORTED_MISMATCHES:
            return
        wrong = [at for at in range(PAGE_BYTES) if expected[at] != found[at]]
        version = self.versions[number]
        self.mismatches.append(
            Mismatch(
                phase=phase,
                page=number,
                version=version,
                kind=self.contents.kind(number, version),
                offset=number * PAGE_BYTES + wrong[0],
                wrong_bytes=len(wrong),
                found=self.contents.identify(found),
            )
        )

    def result(self) -> dict[str, Any]:
        return {
            "pages": self.pages,
            "phases": [phase.as_dict() for phase in self.phases],
            "mismatch_count": self.mismatch_count,
            "mismatches": [mismatch._asdict() for mismatch in self.mismatches],
        }


def _report_json(phase: str, done_bytes: int, total_bytes: int, seconds: float) -> None:
    line = {
        "phase": phase,
        "done_bytes": done_bytes,
        "total_bytes": total_bytes,
        "seconds": round(seconds, 4),
    }
    print(json.dumps(line), flush=True)


def _report_text(phase: str, done_bytes: int, total_bytes: int, seconds: float) -> None:
    if done_bytes == total_bytes and seconds:
        rate = total_bytes / seconds / 1e6
        page_us = seconds / (total_bytes / PAGE_BYTES) * 1e6
        print(f"{phase:7}{seconds:9.3f} s {rate:8.0f} MB/s {page_us:8.2f} us/page", flush=True)


def _hold(report: Report, size_bytes: int) -> None:
    """Wait for a line on stdin, so that others can look at what is swapped."""
    report("hold", size_bytes, size_bytes, 0.0)
    if not sys.stdin.readline():
        sys.exit("workload: stdin was closed during hold: whoever started this is gone")


def main() -> int:
    parser = argparse.ArgumentParser(description="A memory workload whose every byte is known.")
    parser.add_argument("--size", type=parse_size_bytes, default="1G")
    parser.add_argument("--mix", type=parse_mix, default=DEFAULT_MIX)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--touches", type=int, default=20000)
    parser.add_argument("--passes", type=int, default=1, help="of verify and touch")
    parser.add_argument("--cgroup-procs", type=Path, help="the cgroup.procs to move into first")
    parser.add_argument("--hold", action="store_true", help="after fill, wait for a line on stdin")
    parser.add_argument("--json", action="store_true", help="progress and result as JSON lines")
    options = parser.parse_args()

    if options.cgroup_procs:
        options.cgroup_procs.write_text("0")
    report = _report_json if options.json else _report_text
    contents = PageContents(options.seed, options.mix)
    workload = Workload(contents, options.size, report)
    rng = random.Random(options.seed)

    workload.fill()
    if options.hold:
        _hold(report, options.size)
    for _ in range(options.passes):
        workload.verify("verify")
        workload.touch(rng, options.touches)
    workload.verify("final")

    result = workload.result()
    if options.json:
        print(json.dumps({"result": result}), flush=True)
    else:
        print(f"{workload.pages} pages, {workload.mismatch_count} mismatches")
        for mismatch in workload.mismatches:
            print(f"  {mismatch}")
    return 1 if workload.mismatch_count else 0


if __name__ == "__main__":
    sys.exit(main())
