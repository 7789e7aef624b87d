"""What the tests need of the machine, probed; and a running instance for tests to work on.

Where a capability is missing the test is skipped with the probed reason; in CI (CI=true) it fails,
because the machine there is known to have it.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import kernel_log
import pytest
from guest import Guest, GuestUnavailableError, qemu

from vswapfs.fuse import mount
from vswapfs.host import swap

ROOT = Path(__file__).parent.parent
VSWAPCTL = Path(sys.executable).parent / "vswapctl"
COMMAND_TIMEOUT_S = 60


def missing(reason: str) -> NoReturn:
    """The machine cannot do what the test is about."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI this must work: {reason}")
    pytest.skip(reason)


def require_guest(kernel: str) -> None:
    try:
        qemu.require(kernel)
    except GuestUnavailableError as error:
        missing(str(error))


def require_swap() -> None:
    if os.geteuid() != 0:
        missing("not root")
    for node in ("/dev/fuse", "/dev/loop-control"):
        if not Path(node).exists():
            missing(f"no {node}")


def require_survival() -> None:
    """The instance's state can be on a tmpfs that is never swapped out, so its worker may die."""
    require_swap()
    with tempfile.TemporaryDirectory() as directory:
        if run("mount", "-t", "tmpfs", "-o", "noswap", "none", directory).returncode:
            missing("no tmpfs with noswap (Linux 6.4)")
        run("umount", directory)


@contextlib.contextmanager
def virtual_machine(kernel: str, **options: Any) -> Iterator[Guest]:
    """A guest with this checkout in it, booted; of 512 MiB if nothing else is said."""
    require_guest(kernel)
    with Guest(kernel, **options) as guest:
        yield guest


def run(
    *argv: str | Path, timeout_s: float = COMMAND_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its output captured."""
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=timeout_s, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def ctl(*arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    return run(VSWAPCTL, *arguments, timeout_s=timeout_s)


def ctl_ok(*arguments: str) -> str:
    result = ctl(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def ctl_json(*arguments: str) -> Any:
    return json.loads(ctl_ok(*arguments, "--json"))


class Instance:
    """An instance that is up."""

    def __init__(self, name: str) -> None:
        self.name = name
        status = self.status()
        self.pid: int = status["pid"]
        self.supervisor_pid: int = status["supervisor_pid"]
        self.device: str | None = status["loop_device"]
        self.mountpoint: str = status["mountpoint"]
        self.file = f"{self.mountpoint}/swap"

    def status(self) -> dict[str, Any]:
        (status,) = ctl_json("status", self.name)
        assert isinstance(status, dict)
        return status

    def stats(self) -> dict[str, Any]:
        stats = ctl_json("stats", self.name)
        assert isinstance(stats, dict)
        return stats

    def desc(self, *arguments: str) -> list[dict[str, Any]]:
        described = ctl_json("desc", self.name, *arguments)
        assert isinstance(described, list)
        return described

    def resident_bytes(self, part: str) -> int:
        """What a buffer (``pool``, ``descriptors``, ...) takes of RAM, as smaps shows it."""
        smaps = Path(f"/proc/{self.pid}/smaps").read_text()
        file = rf"(/{self.name}/state/{part}|/memfd:{self.name}-{part} \(deleted\))"
        found = re.search(rf"(?ms){file}$.*?^Rss: +(\d+) kB", smaps)
        assert found, f"no buffer {part} in smaps"
        return int(found[2]) * 1024

    def kill(self) -> None:
        """End it, and the supervisor that would replace it. Not by off, which takes pages to RAM
        and trims their slots, as far as it comes."""
        for pid in (self.supervisor_pid, self.pid):
            os.kill(pid, signal.SIGKILL)

    def assert_healthy(self) -> None:
        assert ctl_ok("check", self.name) == "all invariants hold\n"
        stats = self.stats()
        assert stats["checksum_errors"] == 0
        assert stats["internal_errors"] == 0


@contextlib.contextmanager
def swap_instance(name: str, *options: str) -> Iterator[Instance]:
    """`vswapctl on` ... `vswapctl off`; nothing is left behind."""
    require_swap()
    try:
        ctl_ok("on", name, *options)
        yield Instance(name)
        ctl_ok("off", name)
    finally:
        ctl("off", name, "--force")
        assert_nothing_left(name)


@contextlib.contextmanager
def mounted_instance(name: str, mountpoint: Path, *options: str) -> Iterator[Instance]:
    """The foreground command, ended by SIGINT."""
    require_swap()
    command = [str(VSWAPCTL.with_name("vswapfs")), str(mountpoint), "--name", name, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            for line in process.stderr:
                if "is up" in line:
                    break
            else:
                pytest.fail("vswapfs did not come up")
            yield Instance(name)
            process.send_signal(2)
            assert process.wait(COMMAND_TIMEOUT_S) == 0
        finally:
            process.kill()
            ctl("off", name, "--force")
            assert_nothing_left(name)


def assert_nothing_left(name: str) -> None:
    """No mount, loop device, swap area, directory or process of the instance."""
    assert mount.find(name) is None
    assert not [d for d in loop_devices() if f"/{name}/" in d[1]], loop_devices()
    assert not set(swap.active_areas()) & {d[0] for d in loop_devices() if not d[1]}
    assert not Path(f"/run/vswapfs/{name}").exists()
    ours = re.compile(rf'"name":"{name}"|(supervise|worker|standby|adopt) {name}\b')
    wait_until("its processes end", lambda: not [p for p in processes() if ours.search(p[1])], 5)


def write_whole(fd: int, data: bytes, at: int) -> None:
    """All of it, or OSError. A write that begins within a page of our memory is two requests of
    the kernel: if there is no room for the second it is short, and not an error."""
    while data:
        count = os.pwrite(fd, data, at)
        data, at = data[count:], at + count


def loop_devices() -> list[tuple[str, str]]:
    """Attached loop devices and their files."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found.append((f"/dev/{backing.parts[3]}", backing.read_text().strip()))
    return found


def processes() -> list[tuple[int, str]]:
    """Process ids and command lines."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((int(entry.name), (entry / "cmdline").read_text().replace("\0", " ")))
    return found


def wait_until(what: str, condition: Any, timeout_s: float = 20.0) -> None:
    """Wait for a condition that must come true; the test fails if it does not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def kernel_log_mark() -> int:
    """Now, for `kernel_log.since`."""
    try:
        return kernel_log.mark()
    except OSError as error:
        missing(f"the kernel's log: {error}")
