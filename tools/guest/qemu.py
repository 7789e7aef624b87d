"""The machine: QEMU without hardware virtualization, booted, asked, powered off or cut off.

Owns the QEMU process, its scratch disks and its console's log. Never outlives the thread that
booted it: the kernel kills QEMU then, and whatever ends the `with` kills it first. Always holds:
disks keep their contents from one boot to the next; every wait has a limit.

Not for use from several threads at once.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from guest import initramfs, kernels
from guest.commands import AgentConnection, Echo, Result, Running
from guest.errors import (
    GuestCommandError,
    GuestError,
    GuestGoneError,
    GuestTimeoutError,
    GuestUnavailableError,
)
from guest.image import CHECKOUT, base_image, checkout_image, work_directory

QEMU: Final = "qemu-system-x86_64"
DEFAULT_KERNEL: Final = "6.12"
"""Both Debian 12 and 13 offer it; 6.1 is in Debian 12 only."""
CPU: Final = "qemu64,+rdrand,+ssse3,+sse4.1,+sse4.2,+popcnt"
"""No more than wheels and the kernel ask for: wide vector instructions are slow to emulate."""
BOOT_TIMEOUT_S: Final = 240
POWER_OFF_TIMEOUT_S: Final = 30

_CONSOLE_TAIL_BYTES: Final = 4000
_FIRST_SCRATCH_LETTER: Final = "d"  # after vda to vdc, the images


def require(kernel: str) -> kernels.Kernel:
    """The kernel, fetched if need be. Raises GuestUnavailableError: what is missing for a guest."""
    if shutil.which(QEMU) is None:
        raise GuestUnavailableError(f"no guest: no {QEMU} here; install qemu-system-x86")
    return kernels.get(kernel)


class Guest:
    """`with Guest(disks=[1 << 30]) as guest: guest.run("uname -r").stdout`; disks in bytes."""

    def __init__(
        self,
        kernel: str = DEFAULT_KERNEL,
        *,
        memory_mib: int = 512,
        cpus: int = 2,
        disks: Sequence[int] = (),
        append: str = "",
        directory: Path | None = None,
        interactive: bool = False,
        log_writes: bool = False,
        systemd: bool = False,
    ) -> None:
        """The disks and `console.log` are in the directory and stay; without one they go.

        An interactive guest has its console on this terminal. With ``log_writes`` QEMU keeps what
        each disk is told, see `write_log`. With ``systemd`` that is the first process; else nothing
        runs but what is asked for.
        """
        self.memory_mib, self.cpus, self.append = memory_mib, cpus, append
        self._kernel_version = kernel
        self._disk_sizes = tuple(disks)
        self._interactive = interactive
        self._log_writes = log_writes
        self._systemd = systemd
        self._kept_directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._agent: AgentConnection | None = None
        self._serial = 0
        self._running: dict[int, Running] = {}

    def __enter__(self) -> Self:
        """Make what it takes to boot, and boot."""
        with contextlib.ExitStack() as stack:
            self.kernel = require(self._kernel_version)
            self._work = Path(stack.enter_context(work_directory()))
            base_image(self._work / "base.ext4")
            self.directory = self._kept_directory or self._work
            self.directory.mkdir(parents=True, exist_ok=True)
            checkout_image(self._work / "checkout.ext4")
            initramfs.build(self.kernel, self._work / "initramfs")
            for number, size_bytes in enumerate(self._disk_sizes):
                with self.disk_file(number).open("ab") as disk:
                    # What is there from an earlier guest is not cut off.
                    disk.truncate(max(size_bytes, disk.tell()))
            self.console = self.directory / "console.log"
            self.console.write_bytes(b"")
            stack.callback(self.power_cut)
            self.boot()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # -- power --------------------------------------------------------------------------------

    def boot(self, append: str = "") -> None:
        """Boot, or boot again, with these words on the kernel's command line too, this once."""
        if self._process is not None:
            raise GuestError("the guest is on already; power it off or cut its power first")
        if self._log_writes:
            for number in range(len(self._disk_sizes)):
                self.write_log(number).write_bytes(b"")
        ours, theirs = socket.socketpair()
        self._agent = AgentConnection(ours)
        try:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", QEMU, *self._arguments(theirs.fileno(), append)],
                pass_fds=[theirs.fileno()],
                stdin=None if self._interactive else subprocess.DEVNULL,
                stdout=None if self._interactive else subprocess.DEVNULL,
                stderr=None if self._interactive else subprocess.PIPE,
            )
        finally:
            theirs.close()
        limit_s = BOOT_TIMEOUT_S * (3 if self._systemd else 1)
        if "ready" not in self._next_message(time.monotonic() + limit_s, f"boot in {limit_s} s"):
            raise GuestError("the agent did not begin with its greeting")

    def power_cut(self) -> None:
        """Kill the machine where it stands. What its disks were told to write, they have."""
        if self._process is not None:
            self._process.kill()
            self._take_leave()

    def power_off(self) -> None:
        """End the guest in order: its file systems are written out first."""
        self._send(power_off=True)
        self.wait_off(POWER_OFF_TIMEOUT_S)

    def wait_off(self, timeout_s: float) -> None:
        """Wait until the guest powers itself off; boot() can follow."""
        assert self._process
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise GuestTimeoutError(
                f"the guest did not power off in {timeout_s:g} s{self._console_tail()}"
            ) from None
        self._take_leave()

    def _take_leave(self) -> None:
        assert self._process
        assert self._agent
        self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()
        self._agent.close()
        self._process = self._agent = None

    # -- commands -----------------------------------------------------------------------------

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float = 60,
        check: bool = True,
        echo: Echo | None = None,
    ) -> Result:
        """Run a command, a text through bash, in the checkout; with check, it must succeed."""
        result = self.start(command, timeout_s=timeout_s, echo=echo).wait()
        if check and result.exit_code:
            raise GuestCommandError(
                f"status {result.exit_code} in the guest of: {command}\n"
                f"{result.stdout[-2000:]}{result.stderr[-2000:]}"
            )
        return result

    def start(
        self, command: str | Sequence[str], *, timeout_s: float = 60, echo: Echo | None = None
    ) -> Running:
        """Start a command that others may run beside."""
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        running = self._register(argv, timeout_s, echo)
        self._send(id=running.number, argv=argv, timeout_s=timeout_s)
        return running

    def run_on_console(self, argv: Sequence[str], size: tuple[int, int]) -> int:
        """Run a command on the console of an interactive guest, without a limit."""
        running = self._register(argv, float("inf"), None)
        self._send(id=running.number, argv=list(argv), terminal=size)
        return running.wait().exit_code

    def _register(self, argv: Sequence[str], timeout_s: float, echo: Echo | None) -> Running:
        self._serial += 1
        running = Running(self._hear, self._serial, argv, timeout_s, echo)
        self._running[running.number] = running
        return running

    def _hear(self, deadline_s: float, awaited: str) -> None:
        """Take one message of the agent's to whom it is for."""
        message = self._next_message(deadline_s, awaited)
        # After a resume from hibernation the agent of then goes on where it was.
        if running := self._running.get(message.get("id", 0)):
            running.take(message)
            if running.result:
                del self._running[running.number]

    def listen(self, seconds: float) -> None:
        """Take what commands say, for so long; whoever does not blocks them sooner or later."""
        deadline_s = time.monotonic() + seconds
        with contextlib.suppress(GuestTimeoutError):
            while True:
                self._hear(deadline_s, "say anything")

    def _send(self, **message: Any) -> None:
        if self._agent is None:
            raise GuestGoneError("the guest is off; boot() it first")
        try:
            self._agent.send(message)
        except OSError as error:
            raise GuestGoneError(f"the guest is gone: {error}{self._console_tail()}") from None

    def _next_message(self, deadline_s: float, awaited: str) -> dict[str, Any]:
        if self._agent is None or self._process is None:
            raise GuestGoneError("the guest is off; boot() it first")
        try:
            return self._agent.receive(deadline_s)
        except TimeoutError:
            raise GuestTimeoutError(f"the guest did not {awaited}{self._console_tail()}") from None
        except (EOFError, ConnectionError):
            process = self._process
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            words = process.stderr.read().decode(errors="replace") if process.stderr else ""
            raise GuestGoneError(
                f"the guest ended before it could {awaited}: {QEMU} ended with "
                f"{process.poll()} {words}{self._console_tail()}"
            ) from None

    def _console_tail(self) -> str:
        tail = self.console.read_bytes()[-_CONSOLE_TAIL_BYTES:].decode(errors="replace")
        return f"\nits console ends with:\n{tail}"

    # -- the machine --------------------------------------------------------------------------

    def _arguments(self, agent_fd: int, append: str) -> list[str]:
        console = (
            f"stdio,mux=on,signal=off,logfile={_escaped(self.console)},logappend=on"
            if self._interactive
            else f"file,path={_escaped(self.console)},append=on"
        )
        kind, _, rest = console.partition(",")
        arguments = [
            "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", str(self.cpus),
            "-m", str(self.memory_mib), "-nodefaults", "-no-user-config", "-no-reboot",
            "-display", "none", "-kernel", str(self.kernel.vmlinuz),
            "-initrd", str(self._work / "initramfs"), "-append", self._command_line(append),
            "-chardev", f"{kind},id=console,{rest}", "-serial", "chardev:console",
            "-chardev", f"socket,id=agent,fd={agent_fd}", "-device", "virtio-serial-pci",
            "-device", "virtserialport,chardev=agent,name=agent",
        ]  # fmt: skip
        read_only = (
            self._work / "base.ext4", self.kernel.modules_image, self._work / "checkout.ext4",
        )  # fmt: skip
        drives = [f"file={_escaped(image)},readonly=on" for image in read_only]
        drives = [f"format=raw,{drive}" for drive in drives]
        drives += [self._scratch_drive(number) for number in range(len(self._disk_sizes))]
        for drive in drives:
            arguments += ["-drive", f"if=virtio,{drive}"]
        return arguments

    def _scratch_drive(self, number: int) -> str:
        file = _escaped(self.disk_file(number))
        if not self._log_writes:
            return f"format=raw,file={file},discard=unmap"
        log = _escaped(self.write_log(number))
        return (
            f"driver=blklogwrites,discard=unmap,file.driver=file,file.filename={file},"
            f"file.discard=unmap,log.driver=file,log.filename={log}"
        )

    def _command_line(self, append: str) -> str:
        words = [
            # Without the last a host that is busy makes the kernel believe that no timer works.
            "console=ttyS0", "panic=-1", "mitigations=off", "noresume", "no_timer_check",
            f'"guest_checkout={CHECKOUT}"', self.append, append,
        ]  # fmt: skip
        if self._systemd:
            words.insert(0, "guest_systemd=yes systemd.show_status=no")
        if self._interactive:
            words += ["quiet", f"TERM={os.environ.get('TERM', 'linux')}"]
        return " ".join(filter(None, words))

    @property
    def process_id(self) -> int:
        """Of QEMU."""
        if self._process is None:
            raise GuestGoneError("the guest is off; boot() it first")
        return self._process.pid

    @property
    def disk_count(self) -> int:
        return len(self._disk_sizes)

    def disk_file(self, number: int) -> Path:
        """The file on the host of a scratch disk."""
        return self.directory / f"disk{number}"

    def write_log(self, number: int) -> Path:
        """What a scratch disk was told since the last boot, in the format of dm-log-writes. An
        operation is appended when it has been done."""
        return self.directory / f"disk{number}.writes"

    def disk(self, number: int) -> str:
        """The device in the guest of a scratch disk."""
        return f"/dev/vd{chr(ord(_FIRST_SCRATCH_LETTER) + number)}"


def _escaped(path: Path) -> str:
    """A path within an option of QEMU's."""
    return str(path).replace(",", ",,")
