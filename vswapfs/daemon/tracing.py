"""The trace, from the lane to the client.

Owns when it ends: as soon as the client is gone, however that comes. One at a time.
"""

import functools
from typing import Final

import trio

from vswapfs.daemon.ask import ask
from vswapfs.daemon.control import Send
from vswapfs.errors import InstanceError, UsageError
from vswapfs.format.trace import EVENTS, AskTrace
from vswapfs.fuse.lane import Lane
from vswapfs.fuse.trace import Tracer
from vswapfs.units import PAGE_BYTES

TAKE_INTERVAL_S: Final = 0.25
HEARTBEAT_S: Final = 1.0


class Tracing:
    """Over one lane."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._is_on = False

    async def follow(self, request: AskTrace, send: Send) -> None:
        """Until the client hangs up. Raises UsageError, and InstanceError while another traces."""
        size_bytes = self._lane.store.geometry.page_count * PAGE_BYTES
        start = request.start_bytes
        end = size_bytes if request.end_bytes is None else request.end_bytes
        if not 0 <= start < end or start >= size_bytes:
            raise UsageError(
                f"range {start:#x}-{end:#x}: nothing of it is in the area",
                remedy=f"offsets below {size_bytes:#x}",
            )
        if unknown := sorted({*request.events} - {*EVENTS}) or (not request.events and ["nothing"]):
            raise UsageError(
                f"no such event: {', '.join(unknown)}", remedy=f"choose from {', '.join(EVENTS)}"
            )
        if self._is_on:
            raise InstanceError("somebody traces already", remedy="wait until that trace has ended")
        self._is_on = True
        try:
            tracer = await ask(
                self._lane, functools.partial(Tracer, self._lane, request.events, start, end)
            )
            try:
                await self._pass_on(tracer, send)
            finally:
                with trio.CancelScope(shield=True):
                    await ask(self._lane, tracer.stop)
        finally:
            self._is_on = False

    async def _pass_on(self, tracer: Tracer, send: Send) -> None:
        sent_s = -HEARTBEAT_S
        while True:
            taken = await ask(self._lane, tracer.take)
            # Also an empty list: the first tells that the trace is on, those now and then whether
            # the client is still there.
            if taken.events or trio.current_time() > sent_s + HEARTBEAT_S:
                await send(taken)
                sent_s = trio.current_time()
            await trio.sleep(TAKE_INTERVAL_S)
