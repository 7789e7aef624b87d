"""What is looked after once a second: the automatic pool limit, cold pages, tiers, memory in hand,
and what the supervisor has to know.

Owns the clock of these; decides nothing itself, and what changes the store it does on the lane.
"""

import contextlib
import functools
import time
from collections.abc import Callable

import trio

from vswapfs.core import policy
from vswapfs.core.store import Store
from vswapfs.daemon.ask import ask
from vswapfs.daemon.config import auto_limit_least
from vswapfs.daemon.forehand import Forehand
from vswapfs.daemon.tiering import Tiering
from vswapfs.errors import UnmountedError
from vswapfs.format.message import Config
from vswapfs.format.session import Field, Session
from vswapfs.fuse.lane import Lane
from vswapfs.host import memory


async def every_second(
    config: Config,
    session: Session,
    store: Store,
    lane: Lane,
    tiering: Tiering,
    forehand: Forehand,
) -> None:
    """Until it is unmounted."""
    least = auto_limit_least(store.geometry)
    with contextlib.suppress(UnmountedError):
        while True:
            await trio.sleep(1)
            # For the supervisor, which waits for nobody.
            session[Field.SERVED_PAGES] = store.stored_total + store.loaded_total
            session[Field.REFUSED_STORES] = lane.counters["refusals.pool_full"]
            if config.pool_limit_bytes == "auto" and (limit_now := _auto_limit(store, least)):
                await ask(lane, functools.partial(_adjust_limit, store, limit_now))
            if config.recompress:
                now_s = int(time.monotonic())
                await ask(lane, functools.partial(store.recompress_cold, now_s))
            if tiering.tiers:
                await ask(lane, tiering.tick)
            if forehand.is_taking:
                await ask(lane, forehand.look_again)


def _auto_limit(store: Store, least: int) -> Callable[..., int] | None:
    """The limit by the machine's memory now, of what the pool is at. None where no descriptor is to
    be had: the limit stays what it is, as an end of this task would be one of the worker."""
    try:
        return functools.partial(
            policy.auto_limit,
            least=least,
            segment_bytes=store.geometry.segment_bytes,
            available_bytes=memory.available_bytes(),
            reserve_bytes=memory.reserve_bytes(),
            pressure_pct=memory.pressure_pct() or 0.0,
        )
    except OSError:
        return None


def _adjust_limit(store: Store, limit_now: Callable[..., int]) -> None:
    ram = store.segments.ram
    before = ram.limit
    ram.limit = limit_now(limit=before, used=ram.used_count, most=ram.slot_count)
    if ram.limit < before:
        ram.cool()
