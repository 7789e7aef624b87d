"""Requests of the right form with values that cannot be: refused, and nothing is changed."""

import json
from typing import Any

import pytest
from fuzzing import control

from vswapfs.daemon.config import make_geometry
from vswapfs.errors import UsageError
from vswapfs.format.message import Config, Failure, Tiers

MIB = 1 << 20


@pytest.mark.parametrize(
    ("request_fields", "text"),
    [
        ({"type": "tier-add", "tier": {"path": "/a\0b", "size_bytes": 4 * MIB}}, "zero byte"),
        ({"type": "adopt", "pid": 1 << 31}, f"watch process {1 << 31}"),
        ({"type": "adopt", "pid": -(10**30)}, f"watch process {-(10**30)}"),
        ({"type": "set", "key": "write_budget_bytes_per_day", "value": 1 << 63}, "write budget"),
        ({"type": "set", "key": "write_budget_bytes_per_day", "value": 10**30}, "write budget"),
    ],
    ids=["path with a zero byte", "no process", "less than none", "budget", "huge budget"],
)
def test_impossible_values(request_fields: dict[str, Any], text: str) -> None:
    lines = [json.dumps(each).encode() + b"\n" for each in (request_fields, {"type": "tier-list"})]
    failure, tiers = control.ask_the_daemon(lines)
    assert isinstance(failure, Failure)
    assert text in failure.message
    assert isinstance(tiers, Tiers)
    assert tiers.write_budget_bytes_per_day is None


def test_a_write_budget_that_no_superblock_can_hold() -> None:
    config = Config("a", "/a", MIB, "same", True, write_budget_bytes_per_day=1 << 63)
    with pytest.raises(UsageError, match="write budget of"):
        make_geometry(config)
