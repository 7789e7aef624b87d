"""What the machine has not got: room in /run, capabilities, open files, media that stay as large as
they were. It is refused and said, or done without; nothing is lost that is still there, and
nothing is left behind."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from machine import (
    VSWAPCTL,
    Instance,
    assert_nothing_left,
    ctl,
    ctl_ok,
    mounted_instance,
    require_survival,
    require_swap,
    run,
    swap_instance,
    wait_until,
    write_whole,
)

from vswapfs.core.buffers import Geometry
from vswapfs.daemon.config import make_geometry
from vswapfs.errors import HostError, UsageError
from vswapfs.format.message import Config, TierConfig
from vswapfs.format.swaps import SwapArea
from vswapfs.host import swap

MIB = 1 << 20
NAME = "tlimit"

# A mount namespace whose /run/vswapfs is a small file system of its own.
SMALL_RUN = """
mkdir -p /run/vswapfs
mount -t tmpfs -o size=64k,nr_inodes={inodes} none /run/vswapfs
"""
FILL = "cat /dev/zero >/run/vswapfs/fill 2>/dev/null\n"
LEFT = "ls -A /run/vswapfs | grep -v fill\n"


def with_small_run(script: str, inodes: int = 100) -> subprocess.CompletedProcess[str]:
    require_swap()
    text = SMALL_RUN.format(inodes=inodes) + script
    return run("unshare", "--mount", "sh", "-c", text.replace("vswapctl", str(VSWAPCTL)))


@pytest.mark.parametrize(
    ("inodes", "fill"),
    [(100, FILL), (2, ""), (3, ""), (4, ""), (5, "")],
    ids=["bytes", "2", "3", "4", "5"],
)
def test_full_run_at_the_start_leaves_nothing(inodes: int, fill: str) -> None:
    done = with_small_run(
        f"{fill}vswapctl on {NAME} --size 64M; echo ended with $?; {LEFT}", inodes
    )
    assert "No space left on device" in done.stderr
    assert f"/run/vswapfs/{NAME}" in done.stderr
    assert "df" in done.stderr
    assert done.stdout == "ended with 3\n"
    assert_nothing_left(NAME)


def test_full_run_while_it_serves_costs_the_log_only() -> None:
    require_survival()
    done = with_small_run(
        f"vswapctl on {NAME} --size 64M --pool-limit 16M\n{FILL}"
        f"set -e; vswapctl restart {NAME}; vswapctl set {NAME} pool-limit=8M; "
        f"kill -9 $(cat /run/vswapfs/{NAME}/lock); sleep 0.5; vswapctl adopt {NAME}; "
        f"vswapctl check {NAME}; vswapctl off {NAME}; echo down; {LEFT} true"
    )
    assert "all invariants hold\n" in done.stdout, done.stderr
    assert done.stdout.endswith("down\n")
    assert_nothing_left(NAME)


def without(*capabilities: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    dropped = ",".join(f"-{capability}" for capability in capabilities)
    return run(
        *before, "setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", VSWAPCTL, "on",
        NAME, "--size", "64M",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("capability", "words"),
    [("sys_admin", "it needs CAP_SYS_ADMIN"), ("ipc_lock", "give it CAP_IPC_LOCK")],
)
def test_missing_capability_is_named(capability: str, words: str) -> None:
    require_swap()
    done = without(capability)
    assert done.returncode == 3, done.stderr
    assert words in done.stderr
    assert_nothing_left(NAME)


def test_without_capabilities_that_only_help_it_is_up() -> None:
    require_survival()
    done = without("net_admin", "sys_resource", "sys_nice", "mknod", "sys_rawio", "kill", "chown")
    try:
        assert done.returncode == 0, done.stderr
        assert Instance(NAME).status()["survival"] != "none"
        ctl_ok("off", NAME)
    finally:
        ctl("off", NAME, "--force")
        assert_nothing_left(NAME)


def test_limits_that_cannot_be_lifted_are_refused_and_others_are_lifted() -> None:
    require_swap()
    for limit, said, remedy in (
        ("--nofile=64:100", "100 open files are too few", "ulimit -n 512"),
        ("--cpu=600", "RLIMIT_CPU is 600, and an instance must have none", "ulimit -t unlimited"),
        ("--as=1000000000", "RLIMIT_AS is 1000000000", "ulimit -v unlimited"),
    ):
        done = without("sys_resource", before=("prlimit", limit))
        assert done.returncode == 3
        assert said in done.stderr
        assert remedy in done.stderr
        assert_nothing_left(NAME)
    try:
        done = run(
            "prlimit",
            "--nofile=64:4096",
            "--cpu=600:unlimited",
            VSWAPCTL,
            "on",
            NAME,
            "--size",
            "64M",
        )
        assert done.returncode == 0, done.stderr
        up = Instance(NAME)
        assert resource.prlimit(up.pid, resource.RLIMIT_NOFILE) == (512, 4096)
        assert resource.prlimit(up.pid, resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY
        ctl_ok("off", NAME)
    finally:
        ctl("off", NAME, "--force")
        assert_nothing_left(NAME)


def geometry(*tiers_bytes: int) -> Geometry:
    tiers = [TierConfig(f"/dev/{n}", size) for n, size in enumerate(tiers_bytes)]
    return make_geometry(
        Config(
            name=NAME, mountpoint="/", size_bytes=64 * MIB, same_filled="same", swap=True,
            pool_limit_bytes=16 * MIB, tiers=tiers,
        )
    )  # fmt: skip


def test_tiers_that_the_segment_table_cannot_name_are_refused() -> None:
    tib = 1 << 40
    assert geometry(2 * tib, 2 * tib - 16 * MIB)
    with pytest.raises(UsageError, match=r"tiers of 5\.0T are too large"):
        geometry(2 * tib, 3 * tib)
    with pytest.raises(UsageError, match="256 tiers are too many: at most 255"):
        geometry(*[4 * MIB] * 256)


def test_tier_that_is_truncated_in_use_costs_what_was_cut_off(tmp_path: Path) -> None:
    tier = tmp_path / "tier"
    chunks = [os.urandom(MIB) for _ in range(24)]
    options = ("--size", "64M", "--pool-limit", "8M", "--tier", f"{tier}:64M")
    (tmp_path / "mnt").mkdir()
    with mounted_instance(NAME, tmp_path / "mnt", *options) as up:
        fd = os.open(up.file, os.O_RDWR)
        try:
            for number, chunk in enumerate(chunks):
                write_whole(fd, chunk, number * MIB)
            # A segment that is cut off between its write and its reading back has the tier fail.
            wait_until("nothing moves", lambda: not up.stats()["disk"]["segments_moving"])
            os.truncate(tier, 4 * MIB)
            errors = 0
            for page in range(24 * MIB // 4096):
                try:
                    found = os.pread(fd, 4096, page * 4096)
                except OSError as error:
                    assert error.strerror == "Input/output error"  # noqa: PT017
                    errors += 1
                else:
                    number, at = divmod(page * 4096, MIB)
                    assert found == chunks[number][at : at + 4096]
            assert 8 * MIB // 4096 < errors < 21 * MIB // 4096
            # It grows again as it is written, and what is lost can be written anew.
            anew = os.urandom(4096)
            for at in range(0, 24 * MIB, 4096):
                write_whole(fd, anew, at)
            assert os.pread(fd, 4096, 23 * MIB) == anew
        finally:
            os.close(fd)
        assert ctl_ok("lost", NAME) == "no page is lost\n"
        assert up.stats()["internal_errors"] == 0
        assert ctl_ok("check", NAME) == "all invariants hold\n"


FORKS = """
import mmap, os, random
SIZE, PAGEOUT, CHILDREN = 4 << 20, 21, 100
known = random.Random(5).randbytes(SIZE)
memory = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory[:] = known
memory.madvise(PAGEOUT)
swapped = int(open("/proc/self/status").read().split("VmSwap:")[1].split()[0])
hold, let_go = os.pipe()
children = []
for number in range(CHILDREN):
    if not (pid := os.fork()):
        os.close(let_go)
        os.read(hold, 1)  # all of them share the slots by now
        at = number * 40960
        memory[at] ^= 255  # a page of its own from here on
        good = memory[at + 1 : at + 8192] == known[at + 1 : at + 8192]
        os._exit(0 if good else 1)
    children.append(pid)
os.close(let_go)
ends = [os.waitpid(pid, 0)[1] for pid in children]
print(swapped, sum(map(bool, ends)), memory[:] == known)
"""


def test_more_forks_without_exec_share_a_swapped_page_than_its_count_holds() -> None:
    """A slot's count in the kernel is a byte, which goes to 62 and is continued elsewhere."""
    with swap_instance(NAME, "--size", "64M", "--priority", "32767") as up:
        done = run(sys.executable, "-c", FORKS)
        swapped_kib, bad, parent_is_right = done.stdout.split()
        assert int(swapped_kib) > 2048, done
        assert (bad, parent_is_right) == ("0", "True")
        assert up.stats()["pages"]["stored_total"] > 256
        up.assert_healthy()


def test_no_free_swap_slot_is_told_in_other_words_than_the_kernel_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real slots are used up in a guest: tests/vm/test_limits_of_a_machine.py."""
    fake = tmp_path / "swapon"
    fake.write_text("#!/bin/sh\necho swapon failed: Operation not permitted >&2; exit 255\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for count, remedy in ((29, "29 areas are active"), (3, "")):
        areas = {str(n): SwapArea(str(n), 0, 0, 0) for n in range(count)}
        monkeypatch.setattr(swap, "active_areas", areas.copy)
        with pytest.raises(HostError, match="Operation not permitted") as refused:
            swap.on("/dev/loop7", None)
        assert refused.value.remedy.startswith(remedy)
        assert bool(refused.value.remedy) == bool(remedy)
