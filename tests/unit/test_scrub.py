"""The background scrub: a segment of each tier at a time, and no more of the lane than that."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from lanes import LaneAtOnce
from regions import make_buffers

from vswapfs.core.buffers import Geometry
from vswapfs.core.store import Store
from vswapfs.daemon.scrub import BACKGROUND_INTERVAL_S, Scrubber
from vswapfs.format.message import ScrubFinding
from vswapfs.host import memory

pytestmark = pytest.mark.trio

GEOMETRY = Geometry(512, 20, 1 << 16)


async def test_the_background_lists_a_tier_once_a_round(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To list it every time took the lane 6 ms for 16 384 segments, 116 ms for 262 144."""
    monkeypatch.setattr(memory.Watch, "can_spare_some", lambda _self: True)
    there, verified = [4, 2, 7, 5], list[int]()
    lists = 0

    def segments_on(_tier: object) -> list[int]:
        nonlocal lists
        lists += 1
        return list(there)

    class Verified(Scrubber):
        async def segment(self, tier: Any, segment: int) -> tuple[int, list[ScrubFinding]]:
            if segment not in there:
                return 0, []
            verified.append(segment)
            return 9, []

    tiering: Any = SimpleNamespace(tiers={1: SimpleNamespace(number=1)}, segments_on=segments_on)
    lane: Any = LaneAtOnce()
    scrubber = Verified(Store(GEOMETRY, make_buffers(GEOMETRY)), lane, tiering)
    with trio.move_on_after(BACKGROUND_INTERVAL_S * 2.5):
        await scrubber.background()
    assert (verified, lists) == ([4, 2], 1)
    there[:] = [5, 8]  # 7 has left the tier, 8 has come: it waits for the next round
    with trio.move_on_after(BACKGROUND_INTERVAL_S * 3.5):
        await scrubber.background()
    assert (verified, lists) == ([4, 2, 5, 5, 8], 2)


async def test_the_background_waits_until_all_is_counted(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found of a segment is compared with what is counted of it."""
    monkeypatch.setattr(memory.Watch, "can_spare_some", lambda _self: True)
    buffers, verified = make_buffers(GEOMETRY), list[int]()
    Store(GEOMETRY, buffers).store(0, bytes(4096))
    store = Store.attach(GEOMETRY, buffers)

    class Verified(Scrubber):
        async def segment(self, tier: Any, segment: int) -> tuple[int, list[ScrubFinding]]:
            verified.append(segment)
            return 9, []

    one: Any = SimpleNamespace(number=1)
    tiering: Any = SimpleNamespace(tiers={1: one}, segments_on=lambda _tier: [4, 2])
    lane: Any = LaneAtOnce()
    scrubber = Verified(store, lane, tiering)
    with trio.move_on_after(BACKGROUND_INTERVAL_S * 2.5):
        await scrubber.background()
    assert verified == []
    store.finish_count()
    with trio.move_on_after(BACKGROUND_INTERVAL_S * 2.5):
        await scrubber.background()
    assert verified == [4, 2]
