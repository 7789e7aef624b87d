"""Tracing the lane: its methods are replaced by ones that take notes, while somebody looks.

Owns which methods these are. Nothing is done, and nothing asked, while nobody traces. Always holds:
what is replaced behaves as before, and ``stop`` puts all of it back. On the lane only.

Bounded: of more events than EVENTS_MAX between two calls of ``take`` the rest is left out, and the
next time only one in so many is kept that it would have been enough.
"""

from collections import Counter
from collections.abc import Callable, Collection
from time import perf_counter_ns
from typing import Any, Final

from vswapfs.core.cleaner import Cleaner
from vswapfs.core.describe import state_of
from vswapfs.core.homes import Transfer
from vswapfs.errors import VswapError
from vswapfs.format.trace import Event, Events
from vswapfs.fuse import wire
from vswapfs.fuse.lane import Lane
from vswapfs.units import PAGE_BYTES, PAGE_SHIFT

EVENTS_MAX: Final = 1000


class Tracer:
    """Traces from its making until ``stop``. One at a time."""

    def __init__(self, lane: Lane, wanted: Collection[str], start: int, end: int) -> None:
        """``start`` and ``end``: the bytes of the area that are looked at."""
        self._lane, self._store = lane, lane.store
        self._start, self._end = start, end
        self._began_ns = perf_counter_ns()
        self._kept: list[Event] = []
        self._seen = 0
        self._left_out = 0
        self._one_in = 1
        self._replaced: list[tuple[object, str]] = []
        homes, cleaner = self._store.homes, self._store.cleaner
        for event, owner, name, wrap in (
            ("load", lane, "_read", self._request),
            ("store", lane, "_write", self._request),
            ("discard", lane, "_fallocate", self._discard),
            ("writeback", homes, "end_write", self._transfer),
            ("fetch", homes, "end_fetch", self._transfer),
            ("clean", cleaner, "run", self._clean),
            ("clean", cleaner, "run_victim", self._clean),
        ):
            if event in wanted:
                # In the object, where it hides the method of the class.
                vars(owner)[name] = wrap(event, getattr(owner, name))
                self._replaced.append((owner, name))

    def stop(self) -> None:
        """Put everything back."""
        for owner, name in self._replaced:
            del vars(owner)[name]
        self._replaced = []

    def take(self) -> Events:
        """What was kept since the last call."""
        taken = Events(self._kept, self._one_in, self._left_out)
        self._one_in = max(1, -(-self._seen // EVENTS_MAX))
        self._kept, self._seen = [], 0
        return taken

    def _chosen(self) -> bool:
        self._seen += 1
        if self._seen % self._one_in or len(self._kept) >= EVENTS_MAX:
            self._left_out += 1
            return False
        return True

    def _note(self, event: str, began_ns: int, **more: Any) -> None:
        now_ns = perf_counter_ns()
        at_s = round((now_ns - self._began_ns) / 1e9, 6)
        self._kept.append(Event(at_s, event, (now_ns - began_ns) / 1000, **more))

    def _request(
        self, event: str, serve: Callable[[int, int, int], None]
    ) -> Callable[[int, int, int], None]:
        def traced(unique: int, offset: int, size: int) -> None:
            if offset >= self._end or offset + size <= self._start or not self._chosen():
                serve(unique, offset, size)
                return
            began_ns = perf_counter_ns()
            error: VswapError | None = None
            try:
                serve(unique, offset, size)
            except VswapError as caught:
                error = caught
                raise
            finally:
                first, stop = offset >> PAGE_SHIFT, -(-(offset + size) // PAGE_BYTES)
                self._note(
                    event, began_ns,
                    offset=offset, pages=stop - first, states=self._states(first, stop),
                    error=error and error.message,
                )  # fmt: skip

        return traced

    def _states(self, first: int, stop: int) -> dict[str, int]:
        words = self._store.words_of(first, min(stop, self._store.geometry.page_count))
        return dict(Counter(state_of(self._store, word) for word in words))

    def _discard(self, event: str, serve: Callable[[int], None]) -> Callable[[int], None]:
        def traced(unique: int) -> None:
            _handle, offset, size, _mode = wire.FALLOCATE_IN.unpack_from(
                self._lane._request, wire.IN_HEADER_BYTES
            )
            if offset >= self._end or offset + size <= self._start or not self._chosen():
                serve(unique)
                return
            began_ns = perf_counter_ns()
            before = self._store.discarded_total
            serve(unique)
            self._note(
                event, began_ns, offset=offset, pages=self._store.discarded_total - before
            )  # fmt: skip

        return traced

    def _transfer(self, event: str, end: Callable[..., bool]) -> Callable[..., bool]:
        def traced(plan: Transfer, *, ok: bool) -> bool:
            began_ns = perf_counter_ns()
            moved = end(plan, ok=ok)
            if self._chosen():
                self._note(
                    event, began_ns, segment=plan.segment, tier=plan.tier, bytes=plan.length_bytes,
                    error=None if ok else "failed: see the log",
                )  # fmt: skip
            return moved

        return traced

    def _clean(self, event: str, run: Callable[..., bool]) -> Callable[..., bool]:
        cleaner: Cleaner = self._store.cleaner

        def traced(*arguments: Any) -> bool:
            began_ns = perf_counter_ns()
            pages, size = cleaner.moved_pages_total, cleaner.moved_bytes_total
            more = run(*arguments)
            if cleaner.moved_pages_total != pages and self._chosen():
                self._note(
                    event, began_ns, pages=cleaner.moved_pages_total - pages,
                    bytes=cleaner.moved_bytes_total - size,
                )  # fmt: skip
            return more

        return traced
