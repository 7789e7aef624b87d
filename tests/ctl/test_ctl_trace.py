"""trace: what is asked for, how events are shown, and wrong words."""

import json

import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import FakeDaemon

from vswapfs.format.message import Failure
from vswapfs.format.trace import EVENTS, AskTrace, Event, Events

TOLD = [
    Events(
        [
            Event(0.5, "store", 12.25, offset=4096, pages=2, states={"zero": 1, "pool": 1}),
            Event(0.75, "writeback", 3.0, segment=7, tier=1, bytes=1 << 20),
        ],
        1, 0,
    ),
    Events([Event(1.5, "load", 9.0, offset=0, pages=1, error="waits")], 4, 30),
    Failure("gone", "come again", 4),
]  # fmt: skip


def test_events_as_lines(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0", {AskTrace: TOLD}) as daemon:
        result = vswapctl("trace", "--events", "load, store", "--slot", "4K-1M")
    assert daemon.requests == [AskTrace(["load", "store"], 4096, 1 << 20)]
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "TIME EVENT OFFSET PAGES US DETAIL",
        "0.500000 store 0x1000 2 12.2 zero:1 pool:1",
        "0.750000 writeback - - 3.0 segment 7, tier 1 1.0M",
        "1.500000 load 0x0 1 9.0 waits",
    ]
    assert result.stderr.splitlines() == [
        "tracing vswap0; Ctrl-C ends it",
        "showing one event in 4; 30 left out so far", "vswapctl: gone", "  try: come again",
    ]  # fmt: skip
    assert result.exit_code == 4


def test_json_is_an_object_a_line(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0", {AskTrace: TOLD}) as daemon:
        lines = vswapctl("trace", "vswap0", "--json").stdout.splitlines()
    assert daemon.requests == [AskTrace(list(EVENTS), 0, None)]
    assert [json.loads(line)["event"] for line in lines] == ["store", "writeback", "load"]
    assert json.loads(lines[1]) == {
        "at_s": 0.75, "event": "writeback", "us": 3.0, "segment": 7, "tier": 1, "bytes": 1 << 20
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--events", "load,sneeze"], "no such event: 'sneeze' (choose from load, store"),
        (["--slot", "8K-4K"], "the range 8K-4K is empty"),
    ],
)
def test_wrong_words(vswapctl: Vswapctl, arguments: list[str], error: str) -> None:
    with FakeDaemon("vswap0") as daemon:
        result = vswapctl("trace", *arguments)
    assert error in " ".join(result.stderr.split())
    assert (daemon.requests, result.exit_code) == ([], 2)
