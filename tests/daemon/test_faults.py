"""Faults inside: one request fails, the daemon lives, the next request works."""

import contextlib
import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_daemon import MARK
from machine import (
    Instance,
    assert_nothing_left,
    ctl,
    ctl_ok,
    require_survival,
    require_swap,
    wait_until,
    write_whole,
)

from vswapfs.format import instance, message
from vswapfs.host import swap

_libc = ctypes.CDLL(None, use_errno=True)
FAULTY = Path(__file__).parent.parent / "faulty_daemon.py"


def start(
    fault: str, name: str, *, activate: bool = False, tier: Path | None = None, **environment: str
) -> tuple[subprocess.Popen[str], list[dict[str, str]]]:
    """Start a faulty daemon; returns it and what it reported until it was ready or ended."""
    require_swap()
    mountpoint = instance.mountpoint(name) if activate else tempfile.mkdtemp(prefix="vswapfs-")
    config = message.Config(
        name=name, mountpoint=mountpoint, size_bytes=64 << 20, same_filled="same",
        swap=activate, pool_limit_bytes=16 << 20,
        tiers=[message.TierConfig(str(tier), 128 << 20)] if tier else [],
    )  # fmt: skip
    daemon = subprocess.Popen(
        [sys.executable, FAULTY, fault, "run", message.encode(config).decode()],
        stdout=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    reports = []
    assert daemon.stdout
    with daemon.stdout as stdout:
        for line in stdout:
            reports.append(json.loads(line))
            if reports[-1]["type"] != "step":
                break
    return daemon, reports


@contextlib.contextmanager
def faulty_instance(
    fault: str, name: str, *, activate: bool = False, tier: Path | None = None, **environment: str
) -> Iterator[Instance]:
    daemon, reports = start(fault, name, activate=activate, tier=tier, **environment)
    try:
        assert reports[-1]["type"] == "ready", reports
        yield Instance(name)
        ctl_ok("off", name)
        assert daemon.wait(20) == 0
    finally:
        daemon.kill()
        daemon.wait()
        ctl("off", name, "--force")
        assert_nothing_left(name)


def attempt(verb: str, fd: int) -> None:
    """Store a page that this fault is about; then load or discard it."""
    os.pwrite(fd, (MARK + b" " + verb.encode() + b"." * 4096)[:4096], 0)
    if verb == "LOAD":
        os.pread(fd, 4096, 0)
    elif verb == "DISCARD":
        keep_size_punch_hole = 3
        if _libc.fallocate(fd, keep_size_punch_hole, ctypes.c_int64(0), ctypes.c_int64(4096)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.mark.parametrize("verb", ["STORE", "LOAD", "DISCARD"])
def test_defect_in_the_store_fails_its_request_only(verb: str) -> None:
    with faulty_instance("store_raises", "tfault") as mounted:
        fd = os.open(mounted.file, os.O_RDWR)
        try:
            assert os.pwrite(fd, b"before" * 1000, 1 << 20) == 6000
            for _ in range(3):
                with pytest.raises(OSError, match="Input/output error"):
                    attempt(verb, fd)
            assert os.pread(fd, 6000, 1 << 20) == b"before" * 1000
            assert os.pwrite(fd, b"after", 2 << 20) == 5
            assert os.pread(fd, 5, 2 << 20) == b"after"
        finally:
            os.close(fd)
        assert mounted.stats()["internal_errors"] == 3
        assert "Traceback" in Path(instance.log_path("tfault")).read_text()
        assert ctl_ok("check", "tfault") == "all invariants hold\n"


def test_defect_in_a_handler_fails_its_request_only(tmp_path: Path) -> None:
    fault_file = tmp_path / "fault"
    with faulty_instance("handler_raises", "tfault", FAULT_FILE=str(fault_file)) as mounted:
        statistics, area = Path(mounted.mountpoint) / "stats.json", Path(mounted.file)
        fault_file.touch()
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output error"):
                statistics.read_text()
        with area.open("r+b") as file:
            assert file.write(b"page I/O goes on") == 16
        fault_file.unlink()
        assert json.loads(statistics.read_text())["internal_errors"] == 3
        with area.open("rb") as file:
            assert file.read(16) == b"page I/O goes on"


def test_memory_that_cannot_be_locked_is_refused_unless_told_otherwise() -> None:
    daemon, reports = start("unlocked", "tfault")
    assert daemon.wait(10) == 3
    assert reports[-1]["type"] == "failure"
    assert "mlockall" in reports[-1]["message"]
    assert "--allow-unlocked" in reports[-1]["remedy"]
    assert_nothing_left("tfault")


def test_killed_before_the_mount() -> None:
    daemon, _ = start("killed_at_step", "tkill", activate=True, FAULT_STEP="mount")
    assert daemon.wait(10) == -signal.SIGKILL
    try:
        (status,) = json.loads(ctl("status", "tkill", "--json").stdout)
        assert status["state"] == "dead"
        # The next `on` cleans up by itself.
        assert ctl_ok("on", "tkill", "--size", "64M").startswith("/dev/loop")
        assert Instance("tkill").status()["state"] == "running"
        ctl_ok("off", "tkill")
        assert_nothing_left("tkill")
        # And so does `off`.
        daemon, _ = start("killed_at_step", "tkill", activate=True, FAULT_STEP="mount")
        assert daemon.wait(10) == -signal.SIGKILL
        ctl_ok("off", "tkill")
    finally:
        ctl("off", "tkill", "--force")
        assert_nothing_left("tkill")


@pytest.mark.parametrize("step", ["attach", "mkswap", "swapon"])
def test_worker_killed_half_way_through_on(step: str) -> None:
    """What is not up has no successor: the supervisor undoes it and says so."""
    daemon, reports = start("killed_at_step", "tkill", activate=True, FAULT_STEP=step)
    try:
        assert daemon.wait(20) == 3
        assert reports[-1]["type"] == "failure"
        assert "ended with -9 before the instance was up" in reports[-1]["message"]
    finally:
        ctl("off", "tkill", "--force")
        assert_nothing_left("tkill")


@pytest.mark.parametrize("survives", [True, False])
def test_worker_killed_in_swapon(survives: bool) -> None:
    """There may be pages: it is succeeded, unless nobody can. Whoever waits is told, or left."""
    if survives:
        require_survival()
    forced = "" if survives else "memfd"
    daemon, reports = start("killed_in_swapon", "tkill", activate=True, VSWAPFS_FORCE=forced)
    try:
        if survives:
            assert reports[-1]["type"] == "step"
            wait_until("a successor", lambda: ctl("status", "tkill").returncode == 0)
            up = Instance("tkill")
            assert up.device in swap.active_areas()
            assert up.status()["takeovers"] == 1
            ctl_ok("off", "tkill")
            assert daemon.wait(20) == 0
        else:
            assert daemon.wait(20) == 3
            assert reports[-1]["type"] == "failure"
    finally:
        ctl("off", "tkill", "--force")
        assert_nothing_left("tkill")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_swap_is_active_swaps_off_first(number: signal.Signals) -> None:
    require_swap()
    ctl_ok("on", "tsig", "--size", "64M")
    try:
        up = Instance("tsig")
        os.kill(up.pid, number)
        wait_until("the daemon has ended", lambda: not Path("/run/vswapfs/tsig").exists())
        assert up.device not in swap.active_areas()
        assert_nothing_left("tsig")
    finally:
        ctl("off", "tsig", "--force")


def test_force_ends_a_wedged_daemon(tmp_path: Path) -> None:
    fault_file = tmp_path / "fault"
    daemon, reports = start("wedged", "twedge", activate=True, FAULT_FILE=str(fault_file))
    try:
        assert reports[-1]["type"] == "ready"
        fault_file.touch()
        result = ctl("off", "twedge", "--force")
        assert result.returncode == 0, result.stderr
        assert daemon.wait(10) == -signal.SIGKILL
    finally:
        daemon.kill()
        daemon.wait()
        ctl("off", "twedge", "--force")
        assert_nothing_left("twedge")


def test_failed_on_that_cannot_be_undone_serves_on(tmp_path: Path) -> None:
    """Pages may have arrived already: ending would lose them."""
    fault_file = tmp_path / "fault"
    fault_file.touch()
    daemon, reports = start("cannot_undo", "tundo", activate=True, FAULT_FILE=str(fault_file))
    try:
        assert reports[-1]["type"] == "failure"
        assert "fault after swapon" in reports[-1]["message"]
        assert "fault in detach" in reports[-1]["message"]
        assert reports[-1]["remedy"] == "vswapctl off tundo"
        assert Instance("tundo").status()["state"] == "running"
        fault_file.unlink()
        ctl_ok("off", "tundo")
        assert daemon.wait(10) == 3
    finally:
        daemon.kill()
        daemon.wait()
        ctl("off", "tundo", "--force")
        assert_nothing_left("tundo")


MIB = 1 << 20


def tier_state(name: str) -> dict[str, Any]:
    (tier,) = json.loads(ctl_ok("tier", "list", name, "--json"))["tiers"]
    assert isinstance(tier, dict)
    return tier


def fill(fd: int, chunks: list[bytes]) -> int:
    """Write the chunks until there is no space left; returns how many were written whole."""
    for number, chunk in enumerate(chunks):
        try:
            write_whole(fd, chunk, number * MIB)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return number
    return len(chunks)


def wrong(fd: int, chunks: list[bytes]) -> list[int]:
    """The numbers of the chunks that do not come back as they were written."""
    return [n for n, chunk in enumerate(chunks) if os.pread(fd, MIB, n * MIB) != chunk]


def test_tier_that_does_not_take_writes_keeps_everything_in_ram(tmp_path: Path) -> None:
    fault_file = tmp_path / "fault"
    chunks = [os.urandom(MIB) for _ in range(48)]
    with faulty_instance(
        "bad_medium", "tbad", tier=tmp_path / "tier", FAULT_FILE=str(fault_file)
    ) as up:
        fault_file.write_text("write")
        fd = os.open(up.file, os.O_RDWR)
        try:
            stored = fill(fd, chunks)
            assert 8 < stored < len(chunks)
            state = tier_state("tbad")
            assert state["state"] == "failing"
            assert [tier["state"] for tier in up.status()["tiers"]] == ["failing"]
            assert "fault in write" in state["detail"]
            assert state["write_errors"] > 0
            # Each time it is tried again, a slot is in use until that fails.
            wait_until("no slot is in use", lambda: not tier_state("tbad")["used_bytes"])
            assert not wrong(fd, chunks[:stored])
            # Tried again with back-off, it works again by itself.
            fault_file.unlink()
            wait_until("the tier is ok", lambda: tier_state("tbad")["state"] == "ok")
            assert fill(fd, chunks) == len(chunks)
            assert tier_state("tbad")["used_bytes"] > 20 * MIB
            assert not wrong(fd, chunks)
        finally:
            os.close(fd)
        up.assert_healthy()


@pytest.mark.parametrize("fault", ["read", "flip"])
def test_page_that_cannot_be_verified_is_an_error_and_listed(tmp_path: Path, fault: str) -> None:
    fault_file = tmp_path / "fault"
    chunks = [os.urandom(MIB) for _ in range(48)]
    with faulty_instance(
        "bad_medium", "tbad", tier=tmp_path / "tier", FAULT_FILE=str(fault_file)
    ) as up:
        fd = os.open(up.file, os.O_RDWR)
        try:
            assert fill(fd, chunks) == len(chunks)
            assert up.desc("0")[0]["state"] == "disk"
            fault_file.write_text(fault)
            with pytest.raises(OSError, match="Input/output error"):
                os.pread(fd, 4096, 0)
            result = ctl("lost", "tbad", "--json")
            assert result.returncode == 1
            (page,) = json.loads(result.stdout)
            assert page["offset"] == 0
            scrubbed = ctl("scrub", "tbad", "--json")
            assert scrubbed.returncode == 1
            assert json.loads(scrubbed.stdout)["findings"]
            # The fault was in the way there, not on the medium.
            fault_file.unlink()
            assert os.pread(fd, MIB, 0) == chunks[0]
            assert ctl("scrub", "tbad").returncode == 0
            os.pwrite(fd, b"new", 0)
            assert ctl_ok("lost", "tbad") == "no page is lost\n"
        finally:
            os.close(fd)
        assert up.stats()["checksum_errors"] == 1
        assert ctl_ok("check", "tbad") == "all invariants hold\n"
