"""The model: the last samples of an instance, and what follows from any two of them.

Owns rates, shares of a time, and percentiles; `top` shows them, whether the samples come from a
daemon or from a recording. Never asks anybody for a sample and never draws. Always holds: nothing
is computed across a change of worker, whose counters begin at 0, nor backwards in time.
"""

import itertools
from collections import deque
from typing import Final

from vswapfs.format.histogram import percentile_us
from vswapfs.format.message import Sample, TierStatus

KEPT: Final = 240
LATENCY_WINDOW_S: Final = 10.0

Rate = float | None
"""Of a second; None if it is not known."""


class History:
    """Begins empty. What asks for the latest sample needs one."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)

    def __bool__(self) -> bool:
        return bool(self._samples)

    def add(self, sample: Sample) -> None:
        self._samples.append(sample)

    @property
    def latest(self) -> Sample:
        return self._samples[-1]

    def value(self, key: str) -> float | None:
        """A figure of the field table, as it is now; None if it does not apply."""
        return self.latest.stats.values.get(key)

    def rate(self, key: str) -> Rate:
        """How fast a counter grows now."""
        rates = self.rates(key, 1)
        return rates[0] if rates else None

    def rates(self, key: str, count: int) -> list[Rate]:
        """How fast a counter grew, from one sample to the next, the last ``count`` of them."""
        pairs = list(itertools.pairwise(self._samples))[-count:]
        return [_rate(older, newer, key) for older, newer in pairs]

    def tier_rate(self, tier: TierStatus, attribute: str) -> Rate:
        """How fast an attribute of a tier of the latest sample grows."""
        if len(self._samples) < 2 or not _comparable(older := self._samples[-2], self.latest):
            return None
        for before in older.status.tiers:
            if before.uuid == tier.uuid:
                grown: int = getattr(tier, attribute) - getattr(before, attribute)
                return grown / (self.latest.unix_s - older.unix_s)
        return None

    def tiers_rate(self, attribute: str) -> Rate:
        """The same of all tiers together; None if it is not known of any."""
        rates = [self.tier_rate(tier, attribute) for tier in self.latest.status.tiers]
        known = [rate for rate in rates if rate is not None]
        return sum(known) if known else None

    def latency_us(self, key: str, percent: float) -> float | None:
        """A percentile over the last LATENCY_WINDOW_S; None if nothing was timed in it."""
        newest = self.latest.stats.histograms.get(key)
        if newest is None:
            return None
        before = [0] * len(newest.counts)
        for sample in self._samples:
            found = sample.stats.histograms.get(key)
            recent = sample.unix_s >= self.latest.unix_s - LATENCY_WINDOW_S
            if recent and found and sample.status.worker_pid == self.latest.status.worker_pid:
                before = found.counts
                break
        counts = [new - old for new, old in zip(newest.counts, before, strict=True)]
        return percentile_us(counts, percent)


def _comparable(older: Sample, newer: Sample) -> bool:
    return older.status.worker_pid == newer.status.worker_pid and newer.unix_s > older.unix_s


def _rate(older: Sample, newer: Sample, key: str) -> Rate:
    before, after = older.stats.values.get(key), newer.stats.values.get(key)
    if before is None or after is None or not _comparable(older, newer):
        return None
    return (after - before) / (newer.unix_s - older.unix_s)
