"""The kernel swaps real memory to us: every byte comes back, and freed slots come back too."""

import re
import threading
import time
from pathlib import Path

import kernel_log
import pytest
from machine import (
    Instance,
    ctl_ok,
    kernel_log_mark,
    run,
    swap_instance,
    wait_until,
)
from workloads import Peak, held_memory, workload

from vswapfs.host import swapin


def test_workload_of_one_gib_comes_back_whole_and_its_memory_is_freed() -> None:
    with swap_instance("tswap", "--size", "2G", "--pool-limit", "1G") as instance:
        mark = kernel_log_mark()
        peak = Peak(instance)
        peak.start()
        try:
            result = workload(256 << 20, "1G", "zero:1,same:1,text:6,random:2", 20_000)
        finally:
            peak.stop()
        assert result["mismatch_count"] == 0
        stats = instance.stats()
        assert stats["pages"]["stored_total"] > 150_000, "the workload hardly swapped"
        assert stats["pages"]["loaded_total"] > 300_000
        assert peak.most["live_bytes"] > 200 << 20
        assert peak.over_limit == []

        # The kernel frees the slots of a process that has ended, then discards whole clusters.
        def freed() -> bool:
            return bool(instance.stats()["pool"]["live_bytes"] < 0.05 * peak.most["live_bytes"])

        wait_until("live bytes below 5 % of their peak", freed)
        pool = instance.stats()["pool"]
        assert pool["used_bytes"] < 0.15 * peak.most["used_bytes"]
        assert instance.resident_bytes("pool") < 0.15 * peak.most["resident_bytes"]
        assert instance.resident_bytes("pool") == pytest.approx(pool["used_bytes"], abs=1 << 20)
        assert discard_max_bytes(instance) > 0
        logged = "\n".join(kernel_log.since(mark))
        assert not re.search(r"I/O error|error on swap|Bad swap", logged)
        instance.assert_healthy()


def test_full_pool_refuses_stores_and_loses_nothing() -> None:
    with swap_instance("tfull", "--size", "1G", "--pool-limit", "64M") as instance:
        # Hardly compressible, and more than cgroup and pool together can hold of it: the cgroup's
        # own limit must give way, or the kernel kills the workload. So half of it is zeros, which
        # need no pool, and the limit is what the other half needs beyond the pool.
        result = workload(220 << 20, "400M", "zero:3,random:4", 2_000)
        assert result["mismatch_count"] == 0
        stats = instance.stats()
        assert stats["refusals"]["pool_full"] > 0, "the limit was not met"
        assert stats["pages"]["loaded_total"] > 0
        assert stats["pool"]["used_bytes"] <= stats["pool"]["limit_bytes"]
        instance.assert_healthy()
        # What is free again can be used again.
        before = stats["pages"]["stored_total"]
        assert workload(96 << 20, "192M", "text:1", 0)["mismatch_count"] == 0
        assert instance.stats()["pages"]["stored_total"] > before


def test_pages_are_asked_for_many_at_a_time_ahead_of_swapoff() -> None:
    with (
        swap_instance("tahead", "--size", "512M") as instance,
        held_memory(48 << 20, "128M", "text:1") as (group, process),
    ):
        group.set_limit(512 << 20)
        before = instance.stats()
        swapin.ask_for_all(threading.Event())
        after = instance.stats()
        pages = after["pages"]["loaded_total"] - before["pages"]["loaded_total"]
        requests = after["requests"]["read"] - before["requests"]["read"]
        assert pages > (60 << 20) // 4096, "most of what is swapped"
        assert pages / requests > 4
        assert process.poll() is None


def discard_max_bytes(instance: Instance) -> int:
    assert instance.device
    queue = Path("/sys/block") / Path(instance.device).name / "queue"
    return int((queue / "discard_max_bytes").read_text())


def test_blkdiscard_empties_those_descriptors_and_no_others() -> None:
    with swap_instance("tdisc", "--size", "64M") as instance:
        assert instance.device
        ctl_ok("status", "tdisc")
        assert run("swapoff", instance.device).returncode == 0
        with Path(instance.device).open("r+b", buffering=0) as device:
            pages = (page.to_bytes(8, "little") * 256 + b"x" * 2048 for page in range(2048))
            device.writelines(pages)
        mib = 1 << 20
        result = run(
            "blkdiscard", "--offset", str(2 * mib), "--length", str(mib + 8192), instance.device
        )
        assert result.returncode == 0, result.stderr
        described = {row["offset"]: row["state"] for row in instance.desc("0-8M")}
        assert len(described) == 2048
        inside = range(2 * mib, 3 * mib + 8192, 4096)
        assert {described[offset] for offset in inside} == {"empty"}
        assert {state for offset, state in described.items() if offset not in inside} == {"pool"}
        assert discard_max_bytes(instance) > 0
        stats = instance.stats()
        assert stats["pages"]["discarded_total"] == len(inside)
        instance.assert_healthy()


def test_random_touch_does_not_wait_for_commands() -> None:
    """Looking into a busy instance neither fails nor disturbs what it serves."""
    with swap_instance("tbusy", "--size", "512M") as instance:
        answers: list[float] = []
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                started = time.monotonic()
                instance.stats()
                instance.desc("0-1M")
                ctl_ok("status", "tbusy")
                answers.append(time.monotonic() - started)

        looker = threading.Thread(target=look)
        looker.start()
        try:
            assert workload(64 << 20, "256M", "text:4,random:1", 5_000)["mismatch_count"] == 0
        finally:
            stop.set()
            looker.join()
        assert len(answers) > 3
        instance.assert_healthy()
