"""What the daemon itself costs: its memory, its threads' protections, an idle processor."""

import os
import re
import struct
import time
from pathlib import Path

import pytest
from machine import ctl_ok, mounted_instance, swap_instance

from vswapfs.core.stats import FIELDS

RESIDENT_MAX_BYTES = 44 << 20
"""Without pages and the memory in hand for them: 40.6 MB with Python 3.11, 41.5 with 3.13."""
IN_HAND_MAX_BYTES = 13 << 20
NOT_APPLICABLE = {
    "pool.ratio",
    "pool.density_pct",
    *(f"latency.{verb}_p{percent}_us" for verb in ("load", "store") for percent in (50, 90, 99)),
    "budget.per_day_bytes",
    "budget.left_bytes",
    "memory.pressure_pct",
    "succession.last_pause_ms",
}
"""Figures that an instance need not have which is new, has no budget, and a kernel without PSI."""

PF_MEMALLOC_NOIO = 0x00080000
CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def test_empty_daemon_is_small_locked_and_idle() -> None:
    with swap_instance("tsmall", "--size", "32G") as up:
        process = Path(f"/proc/{up.pid}")
        status = (process / "status").read_text()
        resident_kib = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert resident_kib
        in_hand_bytes = up.resident_bytes("pool")
        assert in_hand_bytes < IN_HAND_MAX_BYTES
        assert int(resident_kib[1]) * 1024 - in_hand_bytes < RESIDENT_MAX_BYTES
        locked_kib = re.search(r"VmLck:\s+(\d+) kB", status)
        assert locked_kib
        assert int(locked_kib[1]) > int(resident_kib[1])

        text = ctl_ok("stats", up.name)
        absent = {field.key for field in FIELDS if f"\n{field.key} " not in text}
        assert len(text.splitlines()) == 1 + len(FIELDS) - len(absent), "not in the field table"
        assert absent <= NOT_APPLICABLE

        outcomes = {outcome["name"]: outcome for outcome in up.status()["hardening"]}
        assert outcomes["mlockall"]["ok"]
        assert set(outcomes) == {
            "mlockall",
            "io_flusher",
            "oom_score_adj",
            "gc_freeze",
            "idle_processors",
        }
        for task in (process / "task").iterdir():
            flags = int((task / "stat").read_text().rpartition(")")[2].split()[6])
            assert bool(flags & PF_MEMALLOC_NOIO) == outcomes["io_flusher"]["ok"]
        score = int((process / "oom_score_adj").read_text())
        assert (score == -1000) == outcomes["oom_score_adj"]["ok"]

        def processor_ticks() -> int:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        time.sleep(1)
        before = processor_ticks()
        time.sleep(5)
        # Not a benchmark: a lane that went on polling would use all of it.
        assert processor_ticks() - before <= 0.05 * 5 * CLOCK_TICKS_PER_S


def latency_limit_us() -> int:
    """What processes ask of the machine's idle processors now."""
    with Path("/dev/cpu_dma_latency").open("rb") as device:
        (found,) = struct.unpack("<i", device.read(4))
    assert isinstance(found, int)
    return found


def test_processors_are_kept_awake_only_while_requests_come(tmp_path: Path) -> None:
    driver = Path("/sys/devices/system/cpu/cpuidle/current_driver")
    if not driver.exists() or driver.read_text().strip() != "haltpoll":
        pytest.skip(f"no haltpoll driver: {driver}")
    assert latency_limit_us() > 0, "somebody else keeps processors awake"
    with mounted_instance("tawake", tmp_path, "--size", "64M") as up:
        outcomes = {outcome["name"]: outcome for outcome in up.status()["hardening"]}
        assert "requests" in outcomes["idle_processors"]["detail"]
        assert latency_limit_us() > 0
        fd = os.open(up.file, os.O_RDONLY)
        try:
            for _ in range(1000):
                os.pread(fd, 4096, 0)
            assert latency_limit_us() == 0
        finally:
            os.close(fd)
        time.sleep(1)
        assert latency_limit_us() > 0
