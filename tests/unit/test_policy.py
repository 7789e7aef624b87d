"""The pool limit that the machine decides, with figures instead of a machine."""

from typing import Any

import pytest

from vswapfs.core.policy import auto_limit
from vswapfs.daemon.config import auto_limit_least, make_geometry
from vswapfs.format.message import Config
from vswapfs.host import memory

GIB = 1 << 30
MACHINE: dict[str, Any] = {
    "limit": 1000, "used": 500, "least": 5, "most": 8000, "segment_bytes": 1 << 20,
    "available_bytes": 8 * GIB, "reserve_bytes": GIB, "pressure_pct": 0.0,
}  # fmt: skip


def limit(**changes: Any) -> int:
    return auto_limit(**{**MACHINE, **changes})


def test_half_empty_pool_keeps_its_limit() -> None:
    assert limit() == 1000


def test_nearly_full_pool_grows_while_the_machine_has_memory() -> None:
    assert 1000 < limit(used=900) <= 1125
    assert limit(used=900, available_bytes=2 * GIB) == 1000
    assert limit(used=900, available_bytes=2 * GIB + (3 << 20)) == 1003
    assert limit(limit=7999, used=7990) == 8000


def test_pool_shrinks_when_the_machine_is_short_of_memory() -> None:
    assert limit(available_bytes=GIB - 1) < 500
    assert limit(pressure_pct=11.0) < 500
    assert limit(pressure_pct=11.0, limit=5, used=5) == 5


def test_it_settles_at_both_ends() -> None:
    now = 64
    for _ in range(200):
        now = limit(limit=now, used=now)
    assert now == 8000
    for _ in range(200):
        now = limit(limit=now, used=now, available_bytes=0)
    assert now == 5


def test_the_default_limit_leaves_a_small_machine_its_reserve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """192 MiB of memory are 155 MiB for programs, and `on` refused its own default there."""
    monkeypatch.setattr(memory, "total_bytes", lambda: 155 << 20)
    geometry = make_geometry(Config("small", "/mnt", 256 << 20, "same", True))
    assert geometry.slot_count == 27
    assert auto_limit_least(geometry) == 27
