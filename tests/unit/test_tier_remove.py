"""`tier remove`, beside writes to the tier that were under way."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio.testing
from lanes import LaneAtOnce

from vswapfs.daemon import tier_commands
from vswapfs.daemon.tier_commands import TierCommands
from vswapfs.format.message import Answer


class FakeTiering:
    """A tier with nothing on it, until a write comes that had begun before."""

    def __init__(self) -> None:
        self.tier: Any = SimpleNamespace(number=1, is_leaving=False, path="/t", backing=None)
        self.tiers = {1: self.tier}
        self.segments: list[int] = []
        self.in_flight = 1

    def find(self, _path: str) -> Any:
        return self.tier

    def leave(self, tier: Any, *, leaving: bool) -> None:
        tier.is_leaving = leaving

    def segments_on(self, _tier: Any) -> list[int]:
        return list(self.segments)

    def fetch(self, segment: int, done: Callable[[bool], None], *, salvage: bool) -> bool:
        self.segments.remove(segment)
        done(True)
        return not salvage

    def forget(self, _tier: Any) -> bool:
        if self.in_flight:
            self.in_flight = 0
            self.segments.append(7)
            return False
        if self.segments:
            return False
        self.tiers.clear()
        return True


@pytest.mark.trio
async def test_a_write_that_was_on_its_way_is_fetched_too(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    tiering: Any = FakeTiering()
    segments = SimpleNamespace(tier_live_bytes=[0, 0], free_count=9)
    store: Any = SimpleNamespace(segments=segments, geometry=SimpleNamespace(segment_bytes=1 << 20))
    lane: Any = LaneAtOnce()
    erased: list[Any] = []
    monkeypatch.setattr(tier_commands, "erase", erased.append)

    async def send(_answer: Answer) -> None:
        if not tiering.tiers:
            raise BrokenPipeError  # whoever asked is gone

    with pytest.raises(BrokenPipeError):
        await TierCommands(store, lane, tiering, "test").remove("/t", send)
    assert tiering.tiers == {}
    assert erased == [tiering.tier.backing]
