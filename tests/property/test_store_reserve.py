"""The guarantee of the reserve against an adversary: cleaning ends, and never lacks a segment."""

import random
from collections.abc import Callable

import pytest
from regions import Model, deadline, make_page

from vswapfs.core.buffers import RESERVE_SEGMENTS, Geometry
from vswapfs.core.check import check
from vswapfs.core.descriptor import place
from vswapfs.core.figures import figures
from vswapfs.core.store import Store
from vswapfs.errors import PoolFullError

SEGMENT_BYTES = [1 << shift for shift in (13, 14, 15, 16, 17)]
SLOTS = 6
PAGES = 4096


def page_of(rng: random.Random, kind: str, number: int) -> bytes:
    """``mixed`` alternates so that each segment ends in as much unused room as possible."""
    if kind == "mixed":
        kind = ("random", "text", "tight")[number % 3]
    return make_page(rng, kind)


def full_model(kind: str, segment_bytes: int) -> Model:
    """Every record live, stored until the pool is full."""
    model = Model(Geometry(PAGES, SLOTS, segment_bytes), seed=3)
    with deadline(3):
        for page in range(PAGES):
            if not model.put(page, page_of(model.rng, kind, page)):
                break
    assert model.full_count == 1, "the limit was never met"
    return model


def records_by_segment(store: Store) -> dict[int, list[int]]:
    pages: dict[int, list[int]] = {}
    for page, word in enumerate(store.words[:PAGES].tolist()):
        if word:
            pages.setdefault(place(word).segment, []).append(page)
    return pages


def clean_to_the_end(model: Model) -> None:
    """Straight at the cleaner: a PoolFullError from inside it escapes and fails the test."""
    with deadline(3):
        while model.store.cleaner.run_victim():
            assert model.store.segments.free_count >= RESERVE_SEGMENTS
    assert model.store.segments.free_count >= RESERVE_SEGMENTS


Adversary = Callable[[list[int]], list[int]]
ADVERSARIES: dict[str, Adversary] = {
    "nothing dies": lambda pages: [],
    "one record a segment dies": lambda pages: pages[:1],
    "all but one die": lambda pages: pages[1:],
    "every other dies": lambda pages: pages[::2],
    "the last tenth dies": lambda pages: pages[-max(1, len(pages) // 10) :],
}


@pytest.mark.parametrize("victims", ADVERSARIES.values(), ids=ADVERSARIES.keys())
@pytest.mark.parametrize("kind", ["random", "mixed", "text"])
@pytest.mark.parametrize("segment_bytes", SEGMENT_BYTES)
def test_adversary(segment_bytes: int, kind: str, victims: Adversary) -> None:
    model = full_model(kind, segment_bytes)
    for _ in range(4):
        for pages in records_by_segment(model.store).values():
            for page in victims(pages):
                model.discard(page, 1)
        clean_to_the_end(model)
        with deadline(3):
            for page in range(PAGES):
                if page not in model.truth and not model.put(page, page_of(model.rng, kind, page)):
                    break
        assert model.store.segments.free_count >= RESERVE_SEGMENTS
    model.verify_all()


@pytest.mark.parametrize("segment_bytes", SEGMENT_BYTES)
def test_overwriting_in_a_full_pool(segment_bytes: int) -> None:
    """Each store is refused or kept, none hangs, and a refused one leaves the old contents."""
    model = full_model("random", segment_bytes)
    pages = list(model.truth)
    with deadline(5):
        for number in range(300):
            model.put(model.rng.choice(pages), page_of(model.rng, "mixed", number))
    model.verify_all()


def test_records_that_die_during_a_scan_are_found() -> None:
    """The scan of a large table stops in between; what dies behind it must not be forgotten."""
    model = Model(Geometry(PAGES, slot_count=40, segment_bytes=1 << 17), seed=3)
    raw = (1 << 17) // 4110
    for page in range(39 * raw):
        model.put(page, make_page(model.rng, "random"))
    model.store.clean(1)  # a slice: scores the first few segments, all of them full
    for first in (0, raw):
        model.discard(first, raw - 2)  # and now two of them are nearly empty
    model.store.clean(2)  # the other slices
    model.store.clean(100)
    assert model.store.cleaner.cleaned_total > 0


def test_a_refused_store_says_so_and_changes_nothing() -> None:
    model = full_model("random", 1 << 17)
    before = figures(model.store)
    with pytest.raises(PoolFullError):
        model.store.store(PAGES - 1, make_page(model.rng, "random"))
    after = figures(model.store)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == set()
    assert check(model.store) == []
    # Filled pages need no room.
    model.store.store(PAGES - 1, b"\xff" * 4096)
    assert model.store.load(PAGES - 1) == b"\xff" * 4096
