"""A virtual machine with Debian's kernel: the swap works in it, and so does tools/guest."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from guest import (
    Guest,
    GuestCommandError,
    GuestError,
    GuestGoneError,
    GuestTimeoutError,
    kernels,
)
from guest.image import CACHE, work_directory
from machine import ROOT, require_guest, virtual_machine, wait_until

MIB = 1 << 20
NAME = "tguest"

# Nothing that an instance leaves behind, each line of the output would be something.
LEFT = (
    "swapon --noheadings --show; losetup --list --noheadings; ls /run/vswapfs; "
    "grep fuse.vswapfs /proc/self/mountinfo; pgrep -f [v]swapfs.daemon; true"
)


def swap_on(guest: Guest, pool: str) -> None:
    tier = f"{guest.disk(0)}:256M"
    guest.run(f"vswapctl on {NAME} --size 256M --pool-limit {pool} --tier {tier}")


def workload(size: str, limit: str, touches: int) -> str:
    """A command line: every byte verified, in a cgroup whose limit it exceeds by far."""
    group = "/sys/fs/cgroup/load"
    return (
        f"set -e; echo +memory >/sys/fs/cgroup/cgroup.subtree_control; mkdir -p {group}; "
        f"echo {limit} >{group}/memory.max; python tools/workload.py --json --size {size} "
        f"--touches {touches} --cgroup-procs {group}/cgroup.procs"
    )


@pytest.mark.parametrize(
    ("kernel", "size", "limit"),
    [
        ("6.1", "40M", "24M"),
        pytest.param("6.1", "128M", "48M", marks=pytest.mark.long),
        pytest.param("6.12", "128M", "48M", marks=pytest.mark.long),
    ],
)
def test_swap_on_pool_and_tier(kernel: str, size: str, limit: str, tmp_path: Path) -> None:
    with virtual_machine(kernel, disks=[256 * MIB], directory=tmp_path) as guest:
        release = guest.run("uname -r").stdout
        assert release.startswith(f"{kernel}.")
        swap_on(guest, "6M")

        # Nothing is refused to root on a whole machine.
        status = guest.run(f"vswapctl status {NAME} --json")
        assert status.stderr == ""
        (shown,) = json.loads(status.stdout)
        refused = [outcome for outcome in shown["hardening"] if not outcome["ok"]]
        assert refused == []
        pid = shown["pid"]
        assert guest.run(f"cat /proc/{pid}/oom_score_adj").stdout == "-1000\n"

        done = guest.run(workload(size, limit, 300), timeout_s=400)
        result = json.loads(done.stdout.splitlines()[-1])["result"]
        assert result["mismatch_count"] == 0
        stats = json.loads(guest.run(f"vswapctl stats {NAME} --json").stdout)
        assert stats["disk"]["segments_written_total"] > 8
        assert stats["checksum_errors"] == stats["internal_errors"] == 0
        assert guest.run(f"vswapctl check {NAME}").stdout == "all invariants hold\n"

        guest.run(f"vswapctl off {NAME}")
        assert guest.run(LEFT).stdout == ""

        # The power goes while pages are on the tier; the same disk serves again.
        swap_on(guest, "6M")
        running = guest.start(workload(size, limit, 300), timeout_s=400)
        wait_until("something on the tier", lambda: on_tier(guest), 120)
        guest.power_cut()
        with pytest.raises(GuestGoneError):
            running.wait()
        guest.boot()
        swap_on(guest, "6M")
        guest.run(f"vswapctl off {NAME}")
        assert guest.run(LEFT).stdout == ""
        guest.power_off()


def on_tier(guest: Guest) -> bool:
    listed = json.loads(guest.run(f"vswapctl tier list {NAME} --json").stdout)
    return bool(listed["tiers"][0]["used_bytes"])


def test_commands_disks_and_power(tmp_path: Path) -> None:
    with virtual_machine("6.1", disks=[64 * MIB, 32 * MIB], directory=tmp_path) as guest:
        # Status, both streams, any bytes, any amount.
        result = guest.run("echo out; echo err >&2; exit 7", check=False)
        assert result == (7, "out\n", "err\n")
        with pytest.raises(GuestCommandError, match=r"(?s)status 7 .*said why"):
            guest.run("echo said why; exit 7")
        assert guest.run("printf 'caf\\303\\251'").stdout == "café"
        assert guest.run(["echo", "$HOME", "a  b"]).stdout == "$HOME a  b\n"
        assert len(guest.run("head -c 1M /dev/zero | tr '\\0' x").stdout) == MIB
        assert guest.run(["no-such-command"], check=False).exit_code == 127

        # One beside the other; too long a one is killed, and all that it started.
        mark = guest.start("until [ -e /tmp/mark ]; do sleep 0.1; done; echo seen")
        guest.run("touch /tmp/mark")
        assert mark.wait().stdout == "seen\n"
        with pytest.raises(GuestTimeoutError, match=r"(?s)killed .* after 2 s.*begun"):
            guest.run("echo begun; sleep 1000", timeout_s=2)
        assert guest.run("pgrep sleep", check=False).stdout == ""

        # What is not the host's goes, disks stay: after a power cut, and after a power off.
        assert guest.run(f"blockdev --getsize64 {guest.disk(1)}").stdout == f"{32 * MIB}\n"
        guest.run(f"echo first >/etc/gone; echo first >{guest.disk(0)}; sync {guest.disk(0)}")
        guest.power_cut()
        with pytest.raises(GuestGoneError, match="off; boot"):
            guest.run("true")
        guest.boot(append="quiet hello=world")
        assert "hello=world" in guest.run("cat /proc/cmdline").stdout
        assert guest.run(f"head -1 {guest.disk(0)}; cat /etc/gone", check=False).stdout == "first\n"
        guest.run(f"echo second >{guest.disk(0)}")
        guest.power_off()
        assert (tmp_path / "disk0").read_bytes()[:7] == b"second\n"
        guest.boot()
        with pytest.raises(GuestError, match="on already"):
            guest.boot()

        # A kernel that panics is told as that.
        with pytest.raises(GuestGoneError, match="Kernel panic"):
            guest.run("echo c >/proc/sysrq-trigger")
    assert "Kernel panic" in (tmp_path / "console.log").read_text(errors="replace")


@pytest.mark.long
def test_a_guest_that_hibernates_goes_on() -> None:
    """By the kernel's own means: the agent and what it runs come back with everything else."""
    with virtual_machine("6.1", disks=[1024 * MIB]) as guest:
        disk = guest.disk(0)
        guest.run(f"mkswap {disk}; swapon {disk}; echo kept >/tmp/kept")
        hibernation = guest.start(
            "echo shutdown >/sys/power/disk; echo disk >/sys/power/state; echo back",
            timeout_s=120,
        )
        guest.wait_off(60)
        guest.boot()
        assert guest.run("cat /tmp/kept", check=False).exit_code == 1
        guest.start(f"stat -c %Hr:%Lr {disk} >/sys/power/resume")
        assert hibernation.wait().stdout == "back\n"
        assert guest.run("cat /tmp/kept").stdout == "kept\n"


def test_nothing_is_left_of_a_guest_whose_owner_was_killed() -> None:
    require_guest("6.1")
    script = (
        "import time\nfrom guest import Guest\n"
        "with Guest('6.1') as guest: print(guest.process_id, flush=True); time.sleep(1000)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
    ) as owner:  # fmt: skip
        assert owner.stdout
        qemu = int(owner.stdout.readline())
        left = list(CACHE.glob(f"run-{owner.pid}-*"))
        assert left
        owner.kill()
    wait_until("QEMU is gone", lambda: not is_running(qemu))
    with work_directory():
        assert not any(directory.exists() for directory in left)


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return not re.search(r"(?m)^State:\s+[ZX]", Path(f"/proc/{pid}/status").read_text())
    return False


def test_a_kernel_that_there_is_not() -> None:
    with pytest.raises(GuestError, match=r"no kernel 9\.9: apt offers no package"):
        kernels.get("9.9")
