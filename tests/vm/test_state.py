"""State on a tmpfs without swap (Linux 6.4): reclaim takes none of it, and workers succeed."""

import json
from pathlib import Path

import pytest
from guest import Guest
from machine import virtual_machine

MIB = 1 << 20
NAME = "tstate"
LOG_MAX_BYTES = 64 << 10
GROUPS = "/sys/fs/cgroup"


def group_figure(guest: Guest, group: str, file: str) -> int:
    return int(guest.run(f"cat {GROUPS}/{group}/{file}").stdout)


def reclaim(guest: Guest, group: str) -> None:
    """All that the kernel can take from the group. It says EAGAIN when that was less than asked."""
    for _ in range(5):
        guest.run(f"echo 512M >{GROUPS}/{group}/memory.reclaim", check=False)


def mapped_state(guest: Guest, pid: int) -> dict[str, int]:
    """Sums over what a process maps of the state, in bytes."""
    found = {"Rss": 0, "Swap": 0}
    of_state = False
    for line in guest.run(f"cat /proc/{pid}/smaps").stdout.splitlines():
        key, _, rest = line.partition(":")
        if "-" in line.split()[0]:
            of_state = f"/{NAME}/state/" in line
        elif of_state and key in found:
            found[key] += int(rest.split()[0]) * 1024
    return found


@pytest.mark.long
def test_state_is_never_swapped_out_and_outlives_workers(tmp_path: Path) -> None:
    with virtual_machine("6.12", disks=[256 * MIB, 256 * MIB], directory=tmp_path) as guest:
        guest.run(
            f"echo +memory >{GROUPS}/cgroup.subtree_control; "
            f"mkdir {GROUPS}/instance {GROUPS}/load {GROUPS}/other; "
            # Swap of another kind, so that what is asked for does not depend on us.
            f"mkswap {guest.disk(1)} && swapon -p 100 {guest.disk(1)}"
        )
        guest.run(
            f"echo $$ >{GROUPS}/instance/cgroup.procs; vswapctl on {NAME} --size 256M "
            f"--pool-limit 64M --priority 200 --tier {guest.disk(0)}:256M"
        )
        (status,) = json.loads(guest.run(f"vswapctl status {NAME} --json").stdout)
        assert status["survival"] in ("resend", "journal")
        guest.run(f"echo 32M >{GROUPS}/load/memory.max")
        load = guest.start(
            "python tools/workload.py --json --size 96M --touches 3000 "
            f"--cgroup-procs {GROUPS}/load/cgroup.procs",
            timeout_s=400,
        )
        guest.run(
            f"until [ $(vswapctl stats {NAME} --json | python -c "
            '\'import json,sys; print(json.load(sys.stdin)["pool"]["used_bytes"])\') '
            f"-gt {16 * MIB} ]; do sleep 0.5; done",
            timeout_s=200,
        )

        # What else is in a tmpfs goes: the reclaim is a real one.
        guest.run(f"echo $$ >{GROUPS}/other/cgroup.procs; head -c 16M /dev/urandom >/dev/shm/other")
        reclaim(guest, "other")
        assert group_figure(guest, "other", "memory.swap.current") > 8 * MIB

        reclaim(guest, "instance")
        # The log, which is in the tmpfs of /run, may go.
        assert group_figure(guest, "instance", "memory.swap.current") <= LOG_MAX_BYTES
        (status,) = json.loads(guest.run(f"vswapctl status {NAME} --json").stdout)
        for pid in (status["worker_pid"], status["standby_pid"]):
            found = mapped_state(guest, pid)
            # The standby has mapped what there was when it was started.
            assert found["Rss"] > (16 * MIB if pid == status["worker_pid"] else 0)
            assert found["Swap"] == 0
            assert "VmSwap:\t       0 kB" in guest.run(f"cat /proc/{pid}/status").stdout

        # And a kernel of Debian's can do what this one does.
        for _ in range(3):
            guest.run(f"kill -9 {status['worker_pid']}")
            guest.run(f"until vswapctl check {NAME}; do sleep 0.5; done", timeout_s=60)
            (after,) = json.loads(guest.run(f"vswapctl status {NAME} --json").stdout)
            assert after["takeovers"] == status["takeovers"] + 1
            status = after
        result = json.loads(load.wait().stdout.splitlines()[-1])["result"]
        assert result["mismatch_count"] == 0
        guest.run(f"vswapctl off {NAME}")
        guest.power_off()
