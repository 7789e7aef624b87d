"""The daemon may die: workers, standbys and supervisors are killed, and nothing is lost."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from machine import (
    ROOT,
    Instance,
    assert_nothing_left,
    ctl,
    ctl_ok,
    require_survival,
    run,
    swap_instance,
    wait_until,
)

from vswapfs.format.session import Field
from vswapfs.fuse import mount

NAME = "tsurvive"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _needs_survival() -> None:
    require_survival()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def wait_until_ready(up: Instance) -> None:
    """Until a standby has imported and mapped everything."""
    wait_until("a standby", lambda: ctl(*STATUS).returncode == 0 and up.status()["standby_pid"])


STATUS = ("status", NAME, "--json")


def stress(*options: str) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "tools/stress.py", "kill", *options],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("options", [(), ("--journal",)], ids=["resend", "journal"])
def test_killed_under_load(options: tuple[str, ...]) -> None:
    stress("--rounds", "40", *options)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--journal",),
    ],
    ids=["resend", "journal"],
)
def test_fio_verifies_while_the_worker_is_killed(options: tuple[str, ...]) -> None:
    stress("--rounds", "20", "--mode", "fio", *options)


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [(), ("--journal",), ("--encrypt",)],
    ids=["resend", "journal", "encrypt"],
)
def test_killed_under_load_for_long(options: tuple[str, ...]) -> None:
    stress("--rounds", "300", *options)


def test_what_was_stored_is_there_after_kills_and_restarts(tmp_path: Path) -> None:
    pages = os.urandom(8 * MIB)
    options = ("--size", "64M", "--pool-limit", "8M", "--tier", f"{tmp_path}/tier:64M")
    with swap_instance(NAME, *options) as up:
        assert up.device
        assert run("swapoff", up.device).returncode == 0
        with Path(up.device).open("r+b", buffering=0) as device:
            os.pwrite(device.fileno(), pages, 0)
        first = up.status()["worker_pid"]
        for number in range(1, 6):
            kill(up.status()["worker_pid"])
            wait_until("another worker", lambda: ctl(*STATUS).returncode == 0)
            with Path(up.device).open("rb", buffering=0) as device:
                assert os.pread(device.fileno(), len(pages), 0) == pages
            assert up.status()["takeovers"] == number
        for number in range(6, 9):
            said = ctl_ok("restart", NAME)
            assert "swap waited" in said
            assert up.status()["takeovers"] == number
        with Path(up.device).open("rb", buffering=0) as device:
            assert os.pread(device.fileno(), len(pages), 0) == pages
        status = up.status()
        assert status["worker_pid"] != first
        assert status["last_pause_ms"] < 1000
        assert status["survival"] == "resend"
        up.assert_healthy()


def test_a_successor_serves_without_a_log_and_a_control_socket(tmp_path: Path) -> None:
    """Its directory in /run is full, or was cleared by somebody."""
    page = os.urandom(4096)
    with swap_instance(NAME, "--size", "64M") as up:
        wait_until_ready(up)
        assert up.device
        assert run("swapoff", up.device).returncode == 0
        with Path(up.device).open("r+b", buffering=0) as device:
            os.pwrite(device.fileno(), page, 0)
        for name in ("log", "control"):
            path = Path(f"/run/vswapfs/{NAME}/{name}")
            path.unlink()
            path.mkdir()  # in the way of both
        for number in (1, 2):
            killed = session_word(Field.WORKER_PID)
            kill(killed)
            wait_until("a successor", lambda: session_word(Field.TAKEOVERS) == number)  # noqa: B023
            run("sysctl", "--quiet", "vm.drop_caches=1")
            with Path(up.device).open("rb", buffering=0) as device:
                assert os.pread(device.fileno(), 4096, 0) == page
            wait_until("its standby", lambda: session_word(Field.STANDBY_READY))
        for name in ("log", "control"):
            Path(f"/run/vswapfs/{NAME}/{name}").rmdir()
        kill(session_word(Field.WORKER_PID))
        wait_until("commands are answered again", lambda: ctl(*STATUS).returncode == 0)
        up.assert_healthy()


def session_word(field: Field) -> int:
    """As another process sees it, with nobody asked."""
    with Path(f"/run/vswapfs/{NAME}/state/session").open("rb") as file:
        return int.from_bytes(os.pread(file.fileno(), 8, field * 8), "little")


def test_state_files_are_for_root_only_and_never_swapped() -> None:
    with swap_instance(NAME, "--size", "64M") as up:
        state = Path(f"/run/vswapfs/{NAME}/state")
        assert state.stat().st_mode & 0o7777 == 0o700
        assert {file.stat().st_mode & 0o7777 for file in state.iterdir()} == {0o600}
        (line,) = (x for x in Path("/proc/mounts").read_text().splitlines() if f" {state} " in x)
        assert "noswap" in line.split()[3]
        assert f"{state}/pool" in Path(f"/proc/{up.pid}/smaps").read_text()


def test_supervisor_is_small_and_holds_nothing_on_the_mount() -> None:
    with swap_instance(NAME, "--size", "64M") as up:
        wait_until_ready(up)
        status = up.status()
        for role in ("supervisor_pid", "worker_pid", "standby_pid"):
            for fd in Path(f"/proc/{status[role]}/fd").iterdir():
                assert f"/{NAME}/mnt" not in str(fd.readlink()), role
        resident = Path(f"/proc/{up.supervisor_pid}/statm").read_text().split()[1]
        assert int(resident) * 4096 < 24 * MIB


def test_supervisor_killed_and_worker_adopted() -> None:
    # Of a worker that refuses core dumps the kernel hands descriptors to fewer.
    with swap_instance(NAME, "--size", "64M", "--encrypt") as up:
        wait_until_ready(up)
        worker = up.status()["worker_pid"]
        refused = ctl("adopt", NAME)
        assert refused.returncode == 4
        assert "it has a supervisor" in refused.stderr
        kill(up.supervisor_pid)
        wait_until("it is noticed", lambda: up.status()["supervisor_pid"] is None)
        assert "vswapctl adopt" in ctl("status", NAME).stderr
        assert ctl("restart", NAME).returncode == 3
        ctl_ok("adopt", NAME)
        wait_until_ready(up)
        assert up.status()["worker_pid"] == worker
        kill(worker)
        wait_until("a successor", lambda: ctl(*STATUS).returncode == 0)
        assert up.status()["takeovers"] == 1
        up.assert_healthy()


def test_a_worker_killed_while_it_took_the_instance_down_is_forgotten() -> None:
    """Its successor can be restarted: nobody is at it any more."""
    with swap_instance(NAME, "--size", "64M", "--pool-limit", "32M") as up:
        wait_until_ready(up)
        with Path(f"/run/vswapfs/{NAME}/state/session").open("r+b", buffering=0) as session:
            os.pwrite(session.fileno(), (1).to_bytes(8, "little"), 8 * Field.TAKING_DOWN)
        kill(up.pid)
        wait_until_ready(up)
        ctl_ok("restart", NAME)


def test_off_without_a_supervisor() -> None:
    with swap_instance(NAME, "--size", "64M") as up:
        kill(up.supervisor_pid)
        wait_until("it is noticed", lambda: up.status()["supervisor_pid"] is None)


def test_all_killed_is_the_end_and_nothing_hangs() -> None:
    ctl_ok("on", NAME, "--size", "64M")
    try:
        up = Instance(NAME)
        wait_until_ready(up)
        kill(up.supervisor_pid)
        kill(up.pid)
        wait_until("status says dead", lambda: "dead" in ctl("status", NAME).stdout)
        assert up.device
        assert run(
            "dd", f"if={up.device}", "of=/dev/null", "iflag=direct", "bs=4k", "count=1",
            timeout_s=20,
        ).returncode  # fmt: skip
        ctl_ok("off", NAME, "--force")
    finally:
        ctl("off", NAME, "--force")
        assert_nothing_left(NAME)


def test_restart_refuses_another_version_of_the_state() -> None:
    with swap_instance(NAME, "--size", "64M") as up:
        wait_until_ready(up)
        file = Path(f"/run/vswapfs/{NAME}/state/session")
        with file.open("r+b", buffering=0) as session:
            right = os.pread(session.fileno(), 8, 8 * Field.VERSION)
            os.pwrite(session.fileno(), (999).to_bytes(8, "little"), 8 * Field.VERSION)
            refused = ctl("restart", NAME)
            os.pwrite(session.fileno(), right, 8 * Field.VERSION)
        assert refused.returncode == 3
        assert "serves on" in refused.stderr
        assert up.status()["worker_pid"] == up.pid
        assert up.status()["takeovers"] == 0


def test_a_standby_that_was_not_ready_is_not_waited_for() -> None:
    """Its memory may have been swapped out while it started: to the device that nobody serves."""
    with swap_instance(NAME, "--size", "64M") as up:
        wait_until_ready(up)
        before = session_word(Field.STANDBY_PID)
        kill(before)
        wait_until("another", lambda: session_word(Field.STANDBY_PID) not in (0, before))
        stuck = session_word(Field.STANDBY_PID)
        os.kill(stuck, signal.SIGSTOP)
        assert session_word(Field.STANDBY_READY) != stuck
        kill(up.pid)
        read = run("dd", f"if={up.device}", "of=/dev/null", "bs=4096", "count=1", "iflag=direct")
        assert read.returncode == 0, read.stderr
        assert session_word(Field.WORKER_PID) not in (up.pid, before, stuck)
        wait_until("it has ended", lambda: not Path(f"/proc/{stuck}").exists())


def test_workers_that_cannot_serve_are_given_up() -> None:
    """Each successor refuses the state: no crash loop, and no request hangs."""
    ctl_ok("on", NAME, "--size", "64M")
    try:
        up = Instance(NAME)
        wait_until_ready(up)
        standby_pid = up.status()["standby_pid"]
        with Path(f"/run/vswapfs/{NAME}/state/session").open("r+b", buffering=0) as session:
            os.pwrite(session.fileno(), (999).to_bytes(8, "little"), 8 * Field.VERSION)
        with contextlib.suppress(ProcessLookupError):  # it may have looked, and ended, already
            kill(standby_pid)
        kill(up.pid)
        wait_until("it is given up", lambda: not Path(f"/proc/{up.supervisor_pid}").exists(), 60)
        assert "giving up" in Path(f"/run/vswapfs/{NAME}/log").read_text()
        assert mount.find(NAME) is not None
    finally:
        ctl("off", NAME, "--force")
        assert_nothing_left(NAME)


def test_without_noswap_it_does_not_survive_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSWAPFS_FORCE", "memfd")
    with swap_instance(NAME, "--size", "64M") as up:
        assert "does not survive" in ctl("status", NAME).stderr
        status = up.status()
        assert (status["survival"], status["standby_pid"]) == ("none", None)
        assert ctl("restart", NAME).returncode == 3
