"""Regions over plain memory for tests of the store without a process around it; and what the
tests of the store share: pages of each kind, a model, and the instants at which a kill may come."""

import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import vswapfs.core
from vswapfs.core.buffers import Buffers, Geometry
from vswapfs.core.check import check
from vswapfs.core.store import SameFilled, Store
from vswapfs.errors import PoolFullError
from vswapfs.units import PAGE_BYTES

CORE = str(Path(vswapfs.core.__file__).parent)
KINDS = ("zero", "same", "text", "words", "tight", "random", "almost")
EMPTY_PAGE = bytes(PAGE_BYTES)


class BytesRegion:
    """A region that checks how it is released."""

    def __init__(self, size_bytes: int) -> None:
        assert size_bytes % PAGE_BYTES == 0
        self.data = bytearray(size_bytes)

    @property
    def view(self) -> memoryview:
        return memoryview(self.data)

    def release(self, start: int, stop: int) -> None:
        assert start % PAGE_BYTES == 0
        assert stop % PAGE_BYTES == 0
        assert 0 <= start <= stop <= len(self.data)
        self.data[start:stop] = bytes(stop - start)

    def extents(self) -> list[tuple[int, int]]:
        return [(0, len(self.data))]

    def copy(self) -> "BytesRegion":
        other = BytesRegion(len(self.data))
        other.data[:] = self.data
        return other


def make_buffers(geometry: Geometry) -> Buffers:
    return Buffers(**{name: BytesRegion(size) for name, size in geometry.sizes_bytes().items()})


def regions_of(buffers: Buffers) -> dict[str, BytesRegion]:
    regions = {}
    for name in Buffers.__slots__:
        region = getattr(buffers, name)
        assert isinstance(region, BytesRegion)
        regions[name] = region
    return regions


def clone(buffers: Buffers) -> Buffers:
    """What a successor would find if the process were killed now."""
    return Buffers(**{name: region.copy() for name, region in regions_of(buffers).items()})


def attach(
    geometry: Geometry, buffers: Buffers, same_filled: SameFilled = SameFilled.SAME
) -> Store:
    """A successor that has counted everything."""
    store = Store.attach(geometry, buffers, same_filled)
    store.finish_count()
    return store


# -- pages -----------------------------------------------------------------------------------


WORDS = [f"{number * 7919 % 1000:o}".encode() for number in range(300)]


def make_page(rng: random.Random, kind: str) -> bytes:
    if kind == "zero":
        return EMPTY_PAGE
    if kind == "same":
        return rng.choice((b"\xff" * 8, rng.randbytes(8), b"\0\0\0\0\0\0\0\1")) * 512
    if kind == "text":
        return (rng.randbytes(rng.randrange(40, 900)) * 110)[:PAGE_BYTES]
    if kind == "words":  # what a stronger compressor makes shorter
        return b" ".join(rng.choices(WORDS, k=PAGE_BYTES // 2))[:PAGE_BYTES]
    if kind == "tight":
        return rng.randbytes(9) + bytes(PAGE_BYTES - 9)
    if kind == "almost":
        return b"\xaa" * (PAGE_BYTES - 1) + b"\xab"
    return rng.randbytes(PAGE_BYTES)


# -- a store that must not hang --------------------------------------------------------------


class HangError(AssertionError):
    """The operation did not end. Not caught by ``except VswapError``."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Fail instead of hanging, also when deadlines are nested."""

    def expired(_number: int, _frame: FrameType | None) -> None:
        raise HangError(f"not done after {seconds} s")

    previous = signal.signal(signal.SIGALRM, expired)
    left, _interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, previous)


# -- the model -------------------------------------------------------------------------------


class Model:
    """A store, the dictionary that says what it must hold, and the operations on both."""

    def __init__(
        self,
        geometry: Geometry,
        seed: int,
        same_filled: SameFilled = SameFilled.SAME,
        *,
        store: Store | None = None,
        buffers: Buffers | None = None,
        truth: dict[int, bytes] | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.geometry = geometry
        self.same_filled = same_filled
        self.buffers = buffers or make_buffers(geometry)
        self.store = store or Store(geometry, self.buffers, same_filled)
        self.truth = {} if truth is None else truth
        self.full_count = 0
        self.cleaned_count = 0

    def page(self) -> int:
        # Half of the traffic on a few pages, so that records die.
        if self.rng.random() < 0.5:
            return self.rng.randrange(min(16, self.geometry.page_count))
        return self.rng.randrange(self.geometry.page_count)

    def put(self, page: int, data: bytes) -> bool:
        """Store; False when the pool is full."""
        try:
            self.store.store(page, data)
        except PoolFullError:
            self.full_count += 1
            return False
        self.truth[page] = data
        return True

    def discard(self, first: int, count: int) -> None:
        self.store.discard(first, count)
        for page in range(first, first + count):
            self.truth.pop(page, None)

    def reattach(self) -> None:
        """A successor that sees nothing but the buffers must find the same pages."""
        old = self.store
        self.store = attach(self.geometry, clone(self.buffers), self.same_filled)
        self.verify_all()
        self.cleaned_count += old.cleaner.cleaned_total
        # Counted while it goes on.
        self.store = Store.attach(self.geometry, self.buffers, self.same_filled)

    def step(self) -> None:
        draw = self.rng.random()
        if draw < 0.55:
            self.put(self.page(), make_page(self.rng, self.rng.choice(KINDS)))
        elif draw < 0.75:
            page = self.page()
            assert self.store.load(page) == self.truth.get(page, EMPTY_PAGE)
        elif draw < 0.85:
            first = self.page()
            # Large ones are rare, or the pool would never fill.
            (count,) = self.rng.choices((1, 2, 40, 512), (160, 36, 3, 1))
            self.discard(first, min(count, self.geometry.page_count - first))
        elif draw < 0.98:
            if self.rng.random() < 0.2:
                self.store.cleaner.recompress(sealed_before_s=0)
            self.store.clean(self.rng.choice((1, 3, 50)), idle=self.rng.random() < 0.5)
        else:
            self.reattach()

    def verify_all(self) -> None:
        self.store.finish_count()
        findings = check(self.store)
        assert findings == [], findings
        for page in range(self.geometry.page_count):
            assert self.store.load(page) == self.truth.get(page, EMPTY_PAGE)


# -- where a kill may come -------------------------------------------------------------------


class _Recorder:
    """Clones the buffers whenever a line of the core has changed them."""

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers
        self.last = clone(buffers)
        self.points = [self.last]

    def trace(self, frame: FrameType, _event: str, _arg: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(CORE):
            return None
        return self.line

    def line(self, _frame: FrameType, _event: str, _arg: Any) -> Callable[..., Any]:
        now, last = regions_of(self.buffers), regions_of(self.last)
        if any(now[name].data != last[name].data for name in now):
            self._tear(last["pool"].data, now["pool"].data)
            self.last = clone(self.buffers)
            self.points.append(self.last)
        return self.line

    def _tear(self, old: bytearray, new: bytearray) -> None:
        """A write of many bytes may be cut anywhere; all others are one store of a word."""
        start, stop = _difference(old, new)
        for cut in sorted({start + 1, start + 9, start + 13, (start + stop) // 2, stop - 1}):
            if start < cut < stop:
                torn = clone(self.last)
                regions_of(torn)["pool"].data[start:cut] = new[start:cut]
                self.points.append(torn)

    def __enter__(self) -> "_Recorder":
        sys.settrace(self.trace)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        sys.settrace(None)


def _difference(old: bytearray, new: bytearray) -> tuple[int, int]:
    """The range in which two buffers of one length differ; (0, 0) if they do not."""
    if old == new:
        return 0, 0
    left = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
    return ((left & -left).bit_length() - 1) // 8, (left.bit_length() + 7) // 8


def crash_points(buffers: Buffers, action: Callable[[], object]) -> list[Buffers]:
    """Run the action; return clones of the buffers before it, after each line of the core that
    changed a buffer (for the pool also in the middle of that change), and after it."""
    tracing = sys.gettrace()
    recorder = _Recorder(buffers)
    try:
        with recorder:
            action()
    finally:
        sys.settrace(tracing)
    recorder.points.append(clone(buffers))
    return recorder.points
