"""Settings that change while the instance is up.

Owns which they are, their rules, and the order: checked, then put in force on the lane, then kept
in the session, where a successor finds them. A worker that dies in between has not answered.
"""

import functools
import logging
from collections.abc import Callable
from typing import Final

from vswapfs.core.budget import Budget
from vswapfs.core.buffers import Geometry
from vswapfs.core.store import SameFilled, Store
from vswapfs.daemon.ask import ask
from vswapfs.daemon.config import (
    SEGMENT_BYTES,
    auto_limit_least,
    check_pool_limit,
    check_watermarks,
    check_write_budget,
)
from vswapfs.daemon.logs import set_level
from vswapfs.daemon.tiering import Tiering
from vswapfs.errors import UsageError
from vswapfs.format.message import SAME_FILLED, Config, encode
from vswapfs.format.session import Session
from vswapfs.format.settings import (
    LOG_LEVELS,
    POLLING_WINDOW_US,
    RECOMPRESS_LEVEL,
    WRITEBACK_START_PCT,
    WRITEBACK_STOP_PCT,
    AskSet,
    Changed,
    Number,
    Value,
)
from vswapfs.fuse.lane import Lane
from vswapfs.fuse.window import PollWindow
from vswapfs.units import format_size

_log = logging.getLogger(__name__)


def first_limit(config: Config, geometry: Geometry) -> int:
    """The pool limit in segments with which a worker begins."""
    if config.pool_limit_bytes == "auto":
        return auto_limit_least(geometry)
    if config.pool_limit_bytes is None:
        return geometry.slot_count
    return min(geometry.slot_count, config.pool_limit_bytes // SEGMENT_BYTES)


class Settings:
    """Changes ``config``, which others read too."""

    def __init__(
        self,
        config: Config,
        session: Session,
        store: Store,
        lane: Lane,
        window: PollWindow,
        tiering: Tiering,
    ) -> None:
        """The lane does not run yet: what ``config`` says is put in force."""
        self._config = config
        self._session = session
        self._store = store
        self._lane = lane
        self._window = window
        self._tiering = tiering
        self._setters: Final[dict[str, Callable[[Value], None]]] = {
            "pool_limit_bytes": self._pool_limit,
            "same_filled": self._same_filled,
            "recompress": self._recompress,
            "write_budget_bytes_per_day": self._write_budget,
            "recompress_level": self._recompress_level,
            "writeback_start_pct": self._writeback_start,
            "writeback_stop_pct": self._writeback_stop,
            "polling_window_us": self._polling_window,
            "log_level": self._log_level,
        }
        store.cleaner.recompression_level = config.recompress_level
        self._set_watermarks(config.writeback_start_pct, config.writeback_stop_pct)

    async def change(self, request: AskSet) -> Changed:
        """Raises UsageError; nothing has changed then."""
        key, new = request.key, request.value
        setter = self._setters.get(key)
        if setter is None:
            raise UsageError(
                f"{key!r} cannot be set while an instance is up",
                remedy=f"one of {', '.join(self._setters)}",
            )
        old = getattr(self._config, key)
        if key == "pool_limit_bytes" and old is None:
            old = self._store.segments.ram.limit * SEGMENT_BYTES
        await ask(self._lane, functools.partial(setter, new))
        _log.info("%s is %s now, and was %s", key, new, old)
        return Changed(old, new)

    def _keep(self, key: str, value: Value) -> None:
        setattr(self._config, key, value)
        self._session.keep_config(encode(self._config))

    # Each on the lane.

    def _pool_limit(self, value: Value) -> None:
        ram = self._store.segments.ram
        if value != "auto":
            if type(value) is not int:
                raise _wrong("pool_limit_bytes", value, "a number of bytes or 'auto'")
            segments = check_pool_limit(value)
            if segments > ram.slot_count:
                most = format_size(ram.slot_count * SEGMENT_BYTES)
                raise UsageError(
                    f"a pool limit of {format_size(value)} is above {most}, for which there are "
                    "tables since the start",
                    remedy=f"{most} or less; on --pool-limit auto has room for any",
                )
            ram.limit = segments
            ram.cool()
        self._keep("pool_limit_bytes", value)
        # There may be something to write to a tier, or room for a store that waits.
        self._tiering.pump()
        self._lane.serve_parked()

    def _same_filled(self, value: Value) -> None:
        if value not in SAME_FILLED:
            raise _wrong("same_filled", value, f"one of {', '.join(SAME_FILLED)}")
        self._store.same_filled = SameFilled(str(value))
        self._keep("same_filled", value)

    def _recompress(self, value: Value) -> None:
        if type(value) is not bool:
            raise _wrong("recompress", value, "true or false")
        self._keep("recompress", value)

    def _write_budget(self, value: Value) -> None:
        if value is not None:
            if type(value) is not int:
                raise _wrong("write_budget_bytes_per_day", value, "a number of bytes, or null")
            check_write_budget(value)
        tiering = self._tiering
        if value is None:
            tiering.budget = None
        elif tiering.budget:
            tiering.budget.bytes_per_day = value  # what was written in this window counts
        else:
            tiering.budget = Budget(value, 0, 0)
        tiering.budget_spent = False  # until the next write finds out
        tiering.save_superblocks()
        tiering.pump()
        self._keep("write_budget_bytes_per_day", value)

    def _recompress_level(self, value: Value) -> None:
        level = _number("recompress_level", value, RECOMPRESS_LEVEL)
        self._store.cleaner.recompression_level = level
        self._keep("recompress_level", level)

    def _writeback_start(self, value: Value) -> None:
        start_pct = _number("writeback_start_pct", value, WRITEBACK_START_PCT)
        check_watermarks(start_pct, self._config.writeback_stop_pct)
        self._set_watermarks(start_pct, self._config.writeback_stop_pct)
        self._keep("writeback_start_pct", start_pct)
        self._tiering.pump()

    def _writeback_stop(self, value: Value) -> None:
        stop_pct = _number("writeback_stop_pct", value, WRITEBACK_STOP_PCT)
        check_watermarks(self._config.writeback_start_pct, stop_pct)
        self._set_watermarks(self._config.writeback_start_pct, stop_pct)
        self._keep("writeback_stop_pct", stop_pct)
        self._tiering.pump()

    def _set_watermarks(self, start_pct: int, stop_pct: int) -> None:
        homes = self._store.homes
        homes.start_share, homes.stop_share = start_pct / 100, stop_pct / 100

    def _polling_window(self, value: Value) -> None:
        window_us = _number("polling_window_us", value, POLLING_WINDOW_US)
        self._window.set(window_us)
        self._keep("polling_window_us", window_us)

    def _log_level(self, value: Value) -> None:
        if value not in LOG_LEVELS:
            raise _wrong("log_level", value, f"one of {', '.join(LOG_LEVELS)}")
        set_level(str(value))
        self._keep("log_level", value)


def _number(key: str, value: Value, limits: Number) -> int:
    if type(value) is not int or not limits.allows(value):
        raise _wrong(key, value, limits.rule)
    return value


def _wrong(key: str, value: Value, rule: str) -> UsageError:
    return UsageError(f"{key} cannot be {value!r}: it is {rule}", remedy="vswapctl set --help")
