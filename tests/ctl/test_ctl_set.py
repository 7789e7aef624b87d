"""set: what is asked of the daemon, what is printed, and wrong keys and values."""

import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import FakeDaemon

from vswapfs.format.message import Failure
from vswapfs.format.settings import AskSet, Changed, Value

MIB = 1 << 20


@pytest.mark.parametrize(
    ("word", "field", "value", "old", "told"),
    [
        ("pool-limit=512M", "pool_limit_bytes", 512 * MIB, "auto", "was auto, is 512M"),
        ("pool-limit=auto", "pool_limit_bytes", "auto", 64 * MIB, "was 64.0M, is auto"),
        ("same-filled=zero", "same_filled", "zero", "same", "was same, is zero"),
        ("recompress=yes", "recompress", True, False, "was no, is yes"),
        ("write-budget=2G/day", "write_budget_bytes_per_day", 2 << 30, None, "was none, is 2.0G/d"),
        ("recompress-level=9", "recompress_level", 9, 4, "was 4, is 9"),
        ("writeback-start=95", "writeback_start_pct", 95, 90, "was 90, is 95"),
        ("writeback-stop=50", "writeback_stop_pct", 50, 80, "was 80, is 50"),
        ("polling-window=0", "polling_window_us", 0, 200, "was 200, is 0"),
        ("log-level=error", "log_level", "error", "info", "was info, is error"),
        ("write-budget=none", "write_budget_bytes_per_day", None, 1 << 30, "was 1.0G/day, is none"),
    ],
)
def test_set(
    vswapctl: Vswapctl, word: str, field: str, value: Value, old: Value, told: str
) -> None:
    with FakeDaemon("vswap0", {AskSet: [Changed(old, value)]}) as daemon:
        result = vswapctl("set", "vswap0", word)
    assert daemon.requests == [AskSet(field, value)]
    assert result.stdout.startswith(f"vswap0: {word.split('=')[0]} {told}")
    assert (result.stderr, result.exit_code) == ("", 0)


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("pool-limit", "'pool-limit' is not a setting: it has to be KEY=VALUE"),
        ("size=1G", "a KEY is one of pool-limit, same-filled, recompress, write-budget"),
        ("poollimit=1G", "'poollimit' cannot be set while an instance is up"),
        (
            "writeback-stop=x",
            "writeback-stop= takes 1 to 99, percent of the pool limit; for example",
        ),
        ("pool-limit=x", "pool-limit: 'x' is not a size"),
        ("same-filled=all", "same-filled: 'all' is not one of zero, same, off"),
        ("recompress=1", "recompress: '1' is neither yes nor no"),
        ("recompress-level=2", "recompress-level: '2' is not a whole number from 3 to 12"),
        ("writeback-start=101", "writeback-start: '101' is not a whole number from 2 to 100"),
        ("writeback-stop=0", "writeback-stop: '0' is not a whole number from 1 to 99"),
        ("polling-window=-1", "polling-window: '-1' is not a whole number from 0 to 10000"),
        ("log-level=debug", "log-level: 'debug' is not one of info, warning, error"),
        ("write-budget=1G", "write-budget: '1G' is not a write budget"),
    ],
)
def test_wrong_words(vswapctl: Vswapctl, word: str, error: str) -> None:
    with FakeDaemon("vswap0") as daemon:
        result = vswapctl("set", word)
    assert error in result.stderr
    assert "try: " in result.stderr
    assert (daemon.requests, result.stdout, result.exit_code) == ([], "", 2)


def test_the_daemon_refuses_or_is_dead(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0", {AskSet: [Failure("too much", "less", 2)]}) as daemon:
        result = vswapctl("set", "pool-limit=1T")
        assert result.stderr == "vswapctl: too much\n  try: less\n"
        assert result.exit_code == 2
        daemon.die()
        assert vswapctl("set", "nobody", "pool-limit=1G").exit_code == 4
    assert "is dead" in vswapctl("set", "pool-limit=1G").stderr
