"""What vswapfs is compared with, each behind one door.

    with block_device("zram", size_bytes) as device:  # a device to read and write
    with swap_area("zswap", size_bytes) as device:    # swapped to, before all other areas

Owns setting peers up and taking them down: whatever happens in between, nothing is left. Never
measures. A peer that cannot run here raises BenchError (or HostError) with the reason. One that
does not answer any more is given up with ``Device.abort``: what waits for it then gets an error.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks import bars
from benchmarks.host import BIN, MIB, VSWAPCTL, BenchError, run, vswapctl_json
from benchmarks.serving import START_TIMEOUT_S, Server, serving
from vswapfs.format import instance
from vswapfs.fuse import mount
from vswapfs.host import loop, swap

INSTANCE: Final = f"bench-{os.getpid()}"
"""Name of the vswapfs instance; one at a time."""

PRIORITY: Final = 32767  # the highest
DISK_DIRECTORY: Final = "/var/tmp"
TMPFS_DIRECTORY: Final = "/dev/shm"
TIER_POOL_BYTES: Final = 32 * MIB
"""RAM of the peer ON_DISK: next to nothing, so that nearly all pages are on its tier."""

SWAPOFF_TIMEOUT_S: Final = 180.0

_ZSWAP: Final = Path("/sys/module/zswap/parameters")


@dataclass(frozen=True)
class Device:
    """A peer that is up."""

    path: str
    """What to read and write, or to swap to: a block device, or the swap file."""
    how: str
    """The command that serves it, for the report."""
    pids: tuple[int, ...] = ()
    """The processes that serve it; none if the kernel does."""
    connection: int | None = None
    """Number of the FUSE connection behind it, if there is one."""
    discards: bool = False
    """Whether the peer is meant to be swapped to with discards."""
    off: tuple[str, ...] = ()
    """Its own command to end swapping to it, if there is one."""

    def abort(self) -> None:
        """Give it up: every request that waits for an answer gets an error."""
        if self.connection is not None:
            mount.abort(self.connection)


Peer = Callable[[int], AbstractContextManager[Device]]


def block_device(peer: str, size_bytes: int) -> AbstractContextManager[Device]:
    """A device of the peer, one of DEVICE_PEERS, empty."""
    return DEVICE_PEERS[peer](size_bytes)


@contextmanager
def swap_area(peer: str, size_bytes: int) -> Iterator[Device]:
    """Swap to the peer, one of SWAP_PEERS, before all other areas. See ``swapped_to``."""
    with SWAP_PEERS[peer](size_bytes) as device, swapped_to(device):
        yield device


@contextmanager
def swapped_to(device: Device) -> Iterator[None]:
    """Swap to a device before all other areas.

    The body may swapoff it. Refused while another area has the same priority, which would get half
    of the pages.
    """
    rivals = [area.device for area in swap.active_areas().values() if area.priority == PRIORITY]
    if rivals:
        raise BenchError(f"{rivals[0]} is swapped to with the highest priority: swapoff it")
    run("mkswap", device.path)
    options = ("--discard",) if device.discards else ()
    run("swapon", *options, "--priority", str(PRIORITY), device.path)
    try:
        yield
    finally:
        _swap_off(device)


def _swap_off(device: Device) -> None:
    if device.path not in swap.active_areas():
        return
    try:
        run("swapoff", device.path, timeout_s=SWAPOFF_TIMEOUT_S)
    except BenchError:
        device.abort()
        # One that was killed has to end before another one is taken.
        deadline_s = time.monotonic() + SWAPOFF_TIMEOUT_S
        while device.path in swap.active_areas() and time.monotonic() < deadline_s:
            with suppress(BenchError):
                run("swapoff", device.path)
            time.sleep(0.1)
        raise


# -- file systems in user space, and the loop device over their file -----------------------------


@contextmanager
def _looped(server: Server, *, discards: bool = False) -> Iterator[Device]:
    path = loop.attach(server.file)
    try:
        yield Device(path, server.how, server.pids, server.connection, discards)
    finally:
        if path in loop.attached_to(server.file):
            loop.detach(path, server.file)


@contextmanager
def vswapfs_file(*options: str) -> Iterator[Server]:
    """An instance named INSTANCE in the foreground; its file, without a loop device."""
    with tempfile.TemporaryDirectory() as directory:
        command = [str(BIN / "vswapfs"), directory, "--name", INSTANCE, *options]
        try:
            with serving(command, directory, f"{directory}/swap") as server:
                yield replace(server, pids=_pids())
        finally:
            if Path(instance.directory(INSTANCE)).exists():  # it was aborted
                run(VSWAPCTL, "off", INSTANCE, "--force")


def _pids() -> tuple[int, ...]:
    """Supervisor and worker; they can be asked a moment after the mount."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            (status,) = vswapctl_json("status", INSTANCE)
            return status["supervisor_pid"], status["worker_pid"]
        except BenchError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(0.02)


@contextmanager
def vswapfs_device(*options: str) -> Iterator[Device]:
    """An instance named INSTANCE in the foreground, and a loop device over its file."""
    with vswapfs_file(*options) as server, _looped(server, discards=True) as device:
        yield device


@contextmanager
def _vswapfs(size_bytes: int) -> Iterator[Device]:
    # More pool than needed for pages that do not compress: zram has no limit at all either.
    options = ("--size", str(size_bytes), "--pool-limit", str(size_bytes * 3 // 2))
    with vswapfs_device(*options) as device:
        yield replace(device, off=(VSWAPCTL, "off", INSTANCE))


@contextmanager
def _vswapfs_on_disk(size_bytes: int) -> Iterator[Device]:
    with tempfile.TemporaryDirectory(dir=DISK_DIRECTORY) as directory:
        tier = f"{directory}/tier:{size_bytes}"
        options = ("--size", str(size_bytes), "--pool-limit", str(TIER_POOL_BYTES), "--tier", tier)
        with vswapfs_device(*options) as device:
            yield device


@contextmanager
def _null(size_bytes: int) -> Iterator[Device]:
    with tempfile.TemporaryDirectory() as directory:
        script = str(Path(__file__).with_name("null.py"))
        command = [sys.executable, script, directory, str(size_bytes)]
        with serving(command, directory, f"{directory}/swap") as server, _looped(server) as device:
            yield device


@contextmanager
def _qemu_storage_daemon(size_bytes: int) -> Iterator[Device]:
    with tempfile.TemporaryDirectory(dir=TMPFS_DIRECTORY) as directory:
        image, file = Path(directory, "image"), Path(directory, "swap")
        for path, length_bytes in ((image, size_bytes), (file, 0)):
            path.touch(0o600)
            os.truncate(path, length_bytes)
        command = [
            "qemu-storage-daemon",
            "--blockdev", f"driver=file,node-name=file,filename={image}",
            "--blockdev", "driver=raw,node-name=raw,file=file",
            "--export", f"type=fuse,id=export,node-name=raw,mountpoint={file},writable=on",
        ]  # fmt: skip
        with serving(command, str(file), str(file)) as server, _looped(server) as device:
            yield device


@contextmanager
def _nbdkit(size_bytes: int) -> Iterator[Device]:
    with tempfile.TemporaryDirectory() as directory:
        file = f"{directory}/swap"
        nbdkit = f"nbdkit --foreground --exit-with-parent memory {size_bytes} allocator=zstd"
        command = ["nbdfuse", file, "[", *nbdkit.split(), "]"]
        with serving(command, directory, file) as server, _looped(server) as device:
            yield device


# -- what the kernel has ------------------------------------------------------------------------


@contextmanager
def _zram(size_bytes: int) -> Iterator[Device]:
    there_before = set(Path("/dev").glob("zram*"))
    command = ("zramctl", "--find", "--size", str(size_bytes), "--algorithm", "lz4")
    path = run(*command)
    try:
        yield Device(path, " ".join(command))
    finally:
        if Path(path) in there_before:
            run("zramctl", "--reset", path)
        else:
            Path("/sys/class/zram-control/hot_remove").write_text(path.removeprefix("/dev/zram"))


@contextmanager
def _swap_file(size_bytes: int) -> Iterator[Device]:
    with tempfile.TemporaryDirectory(dir=DISK_DIRECTORY) as directory:
        file = f"{directory}/swapfile"
        command = ("fallocate", "--length", str(size_bytes), file)
        run(*command)
        Path(file).chmod(0o600)
        yield Device(file, " ".join(command))


@contextmanager
def _zswap(size_bytes: int) -> Iterator[Device]:
    """The same file with zswap before it. For all areas of the machine, the kernel knows no other.

    With the compressor that is set: the kernel may have no other.
    """
    switch = _ZSWAP / "enabled"
    if not switch.exists():
        raise BenchError(f"no zswap in this kernel: {_ZSWAP} is not there")
    before = switch.read_text()
    compressor = (_ZSWAP / "compressor").read_text().strip()
    with _swap_file(size_bytes) as device:
        switch.write_text("Y")
        try:
            yield replace(device, how=f"zswap, compressor {compressor}, before {device.how}")
        finally:
            switch.write_text(before)


DEVICE_PEERS: Final[dict[str, Peer]] = {
    "vswapfs": _vswapfs,
    "null": _null,
    "qemu-storage-daemon": _qemu_storage_daemon,
    "nbdkit": _nbdkit,
    "zram": _zram,
}
SWAP_PEERS: Final[dict[str, Peer]] = {
    "vswapfs": _vswapfs,
    bars.ON_DISK: _vswapfs_on_disk,
    "zram": _zram,
    "zswap": _zswap,
    "swap file": _swap_file,
    "qemu-storage-daemon": _qemu_storage_daemon,
    "nbdkit": _nbdkit,
}
RISKY_SWAP_PEERS: Final = frozenset(("qemu-storage-daemon", "nbdkit"))
"""They allocate memory to take a page and do not lock theirs: swapping to them may hang. And
qemu-storage-daemon 7.2 mixes up writes that are in flight together (fio --verify at depth 16 finds
it), so that processes which swap to it crash."""
