"""Settings change under swap in use, and outlive the worker."""

import os
import signal
from pathlib import Path

from machine import Instance, ctl, ctl_json, ctl_ok, require_survival, swap_instance, wait_until
from workloads import held_memory

MIB = 1 << 20
NAME = "tset"
NUMBERS_SET = ("writeback-stop=25", "writeback-start=50", "polling-window=0", "recompress-level=9",
               "log-level=warning")  # fmt: skip


def limit_bytes(instance: Instance) -> int:
    return int(instance.stats()["pool"]["limit_bytes"])


def used_share(instance: Instance) -> float:
    pool = instance.stats()["pool"]
    return float(pool["used_bytes"] - pool["in_hand_bytes"]) / float(pool["limit_bytes"])


def kill_worker(instance: Instance) -> None:
    wait_until("a standby", lambda: instance.status()["standby_pid"])
    before = instance.status()["worker_pid"]
    os.kill(before, signal.SIGKILL)
    wait_until("another worker", lambda: ctl("status", NAME, "--json").returncode == 0)
    wait_until("its figures", lambda: ctl("stats", NAME, "--json").returncode == 0)
    assert instance.status()["worker_pid"] != before


def test_settings_are_in_force_and_a_successor_knows_them(tmp_path: Path) -> None:
    require_survival()
    options = ("--size", "256M", "--pool-limit", "128M", "--tier", f"{tmp_path}/tier:128M")
    with (
        swap_instance(NAME, *options) as instance,
        held_memory(32 * MIB, "160M", "text:1,random:1") as (_group, process),
    ):
        used = instance.stats()["pool"]["used_bytes"]
        assert used > 64 * MIB
        told = ctl_ok("set", NAME, "pool-limit=32M")
        assert told == f"{NAME}: pool-limit was 128M, is 32.0M\n"
        wait_until(
            "pages above the limit on the tier",
            lambda: used_share(instance) <= 0.9,
        )
        assert used_share(instance) > 0.5
        assert ctl_ok("set", NAME, "same-filled=off") == f"{NAME}: same-filled was same, is off\n"
        ctl_ok("set", NAME, "recompress=yes")
        for word in NUMBERS_SET:
            ctl_ok("set", NAME, word)
        ctl_ok("set", NAME, "write-budget=1G/day")
        assert ctl_json("tier", "list", NAME)["write_budget_bytes_per_day"] == 1 << 30

        for take_over in (kill_worker, lambda _instance: ctl_ok("restart", NAME)):
            take_over(instance)
            assert limit_bytes(instance) == 32 * MIB
            assert instance.status()["same_filled"] == "off"
            assert ctl_json("tier", "list", NAME)["write_budget_bytes_per_day"] == 1 << 30
            told = ctl_ok("set", NAME, "recompress=yes")
            assert told == f"{NAME}: recompress was yes, is yes\n"
            for word in NUMBERS_SET:
                key, _, value = word.partition("=")
                told = ctl_ok("set", NAME, word)
                assert told == f"{NAME}: {key} was {value}, is {value}\n"
            assert used_share(instance) <= 0.5
            assert instance.stats()["lane"]["window_us"] == 0
            log = Path(f"/run/vswapfs/{NAME}/log").read_text()
            assert "took over" not in log  # that is information, and log-level=warning

        assert ctl_ok("set", NAME, "pool-limit=128M").endswith("is 128M\n")
        ctl_ok("set", NAME, "write-budget=none")
        assert ctl_json("tier", "list", NAME)["write_budget_bytes_per_day"] is None
        for word, error in (
            ("pool-limit=129M", "is above 128M, for which there are tables"),
            ("pool-limit=1M", "is too small"),
            ("pool-limit=100T", "is too large"),
            ("writeback-start=25", "writeback cannot start at 25 % of the pool limit and stop at"),
            ("writeback-stop=50", "it has to stop at less than where it starts"),
        ):
            refused = ctl("set", NAME, word)
            assert refused.returncode == 2
            assert error in refused.stderr
        assert limit_bytes(instance) == 128 * MIB
        assert process.poll() is None
        instance.assert_healthy()
