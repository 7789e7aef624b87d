"""What runs beside the lane: it lets the lane be, and ends quietly when the lane has ended."""

import errno
import functools
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing
from lanes import LaneAtOnce
from regions import KINDS, make_buffers, make_page

from vswapfs.core.buffers import Geometry
from vswapfs.core.descriptor import CLUSTER_PAGES
from vswapfs.core.store import Store
from vswapfs.daemon.scrub import Scrubber
from vswapfs.daemon.service import Service
from vswapfs.daemon.upkeep import every_second
from vswapfs.format.session import Field
from vswapfs.fuse.inbox import Inbox
from vswapfs.host import memory

pytestmark = pytest.mark.trio

CLUSTERS = 20
GEOMETRY = Geometry(CLUSTERS * CLUSTER_PAGES, 16, 1 << 16)


class Ended(LaneAtOnce):
    def __init__(self) -> None:
        self.counters = {"refusals.pool_full": 7}

    def submit(self, work: Callable[[], Any], completion: Callable[..., None]) -> None:
        inbox = Inbox(lambda _what: None)
        inbox.close()
        inbox.submit(work, completion)


async def test_what_is_done_now_and_then_ends_with_the_lane(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = Store(GEOMETRY, make_buffers(GEOMETRY))
    tiering: Any = SimpleNamespace(tiers={1: SimpleNamespace(number=1)}, tick=lambda: None)
    lane: Any = Ended()
    config: Any = SimpleNamespace(pool_limit_bytes=None, recompress=True)
    session: Any = {}
    forehand: Any = SimpleNamespace(is_taking=True, look_again=lambda: None)
    scrubber = Scrubber(store, lane, tiering)
    with trio.fail_after(100):
        await every_second(config, session, store, lane, tiering, forehand)
        await scrubber.background()
    assert session[Field.REFUSED_STORES] == 7


async def test_no_descriptor_to_be_had_leaves_the_automatic_limit_as_it_is(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the worker: each look at the machine's memory opens a file."""
    store = Store(GEOMETRY, make_buffers(GEOMETRY))
    before = store.segments.ram.limit
    looks = list[int]()

    def available_bytes() -> int:
        looks.append(1)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(memory, "available_bytes", available_bytes)
    config: Any = SimpleNamespace(pool_limit_bytes="auto", recompress=False)
    lane: Any = LaneAtOnce()
    lane.counters = {"refusals.pool_full": 0}
    tiering: Any = SimpleNamespace(tiers={})
    forehand: Any = SimpleNamespace(is_taking=False)
    session: Any = {}
    with trio.move_on_after(2.5):
        await every_second(config, session, store, lane, tiering, forehand)
    assert len(looks) == 2
    assert store.segments.ram.limit == before


async def test_a_successor_counts_between_requests(autojump_clock: trio.testing.MockClock) -> None:
    """At once it would take 0.13 s for each GiB, and all page I/O would wait."""
    buffers, rng = make_buffers(GEOMETRY), Random(1)
    before = Store(GEOMETRY, buffers)
    for page in range(0, GEOMETRY.page_count, 40):
        before.store(page, make_page(rng, KINDS[page % 2]))
    store = Store.attach(GEOMETRY, buffers)
    at_once: list[int] = []
    recount: Any = store.recount
    step = recount.step

    def counted(clusters: int) -> bool:
        at_once.append(clusters)
        return bool(step(clusters))

    recount.step = counted
    looked: list[bool] = []
    serve = SimpleNamespace(
        _lane=LaneAtOnce(),
        _store=store,
        _forehand=SimpleNamespace(look_after=lambda: looked.append(store.recount is None)),
        _control=SimpleNamespace(serve=served),
        _succession=SimpleNamespace(ring=lambda: None),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(Service._serve_on, cast("Service", serve)))
        while store.recount is not None:
            await trio.sleep(0.1)
            store.clean(60)
    assert max(at_once) <= 6
    assert looked == [True]


async def served(*, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()


async def test_a_completion_that_raises_does_not_keep_the_rest_from_being_told() -> None:
    defects: list[str] = []
    told: list[BaseException | None] = []
    inbox = Inbox(defects.append)

    def fail(_result: Any, _error: BaseException | None) -> None:
        raise ValueError

    for completion in (fail, lambda _result, error: told.append(error)):
        inbox.submit(lambda: None, completion)
    inbox.close()
    assert (defects, len(told)) == (["a completion"], 1)
