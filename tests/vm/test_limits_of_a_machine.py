"""What is not tried on a machine that others use: no free swap slot, and a date that is set."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from guest import Result
from machine import virtual_machine

MIB = 1 << 20
NAME = "tslots"

# Swap areas of 64 KiB each, until the kernel takes no more.
FILL_SLOTS = """
truncate -s 64K /tmp/area; mkswap /tmp/area >/dev/null
for n in $(seq 40); do
    cp /tmp/area /tmp/area$n
    swapon $(losetup --find --show /tmp/area$n) 2>/dev/null || break
done
grep -c /dev/loop /proc/swaps
"""


Run = Callable[..., Result]


def budget(run: Run) -> tuple[int, int]:
    stats = json.loads(run(f"vswapctl stats {NAME} --json").stdout)["budget"]
    return stats["per_day_bytes"], stats["left_bytes"]


@pytest.mark.long
def test_no_free_swap_slot_and_a_date_that_is_set(tmp_path: Path) -> None:
    with virtual_machine("6.12", disks=[256 * MIB], directory=tmp_path) as guest:
        run = functools.partial(guest.run, timeout_s=300)
        areas = int(run(FILL_SLOTS).stdout)
        assert 23 <= areas <= 29
        refused = run(f"vswapctl on {NAME} --size 64M", check=False)
        assert refused.exit_code == 3
        assert f"{areas} areas are active" in refused.stderr
        assert run("ls /run/vswapfs; grep fuse.vswapfs /proc/mounts; true").stdout == ""
        run("swapoff /dev/loop0")
        run(
            f"vswapctl on {NAME} --size 64M --pool-limit 8M --write-budget 4M/day "
            f"--tier {guest.disk(0)}:256M --priority 9"
        )
        # More than the pool holds and the budget lets through.
        fill = (
            "import os; f = os.open('/run/vswapfs/tslots/mnt/swap', os.O_WRONLY)\n"
            "for n in range(16):\n"
            "    try: os.pwrite(f, os.urandom(1 << 20), (n + 16) << 20)\n"
            "    except OSError as error: print(error.strerror)"
        )
        assert "No space left" in run(f'python -c "{fill}"').stdout
        per_day, left = budget(run)
        assert (per_day, left < 1 * MIB) == (4 * MIB, True)
        for date in ("2031-05-05", "2001-01-01", "2026-06-06"):
            run(f"date --set {date}")
            assert budget(run) == (per_day, left)
            assert run(f"vswapctl check {NAME}").stdout == "all invariants hold\n"
        run(f"vswapctl off {NAME}")
