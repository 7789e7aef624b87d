"""The daemon with a fault in it: python faulty_daemon.py FAULT run CONFIG.

Tests put faults in from outside, so that the product needs no hooks for them.
"""

import errno
import os
import signal
import sys
import time
from pathlib import Path

import trio

from vswapfs.backing.file import FileBacking
from vswapfs.core.store import Store
from vswapfs.daemon import __main__ as daemon
from vswapfs.daemon import service
from vswapfs.daemon.report import Reporter
from vswapfs.errors import HostError
from vswapfs.fuse.lane import Lane
from vswapfs.host import hardening, loop, swap

MARK = b"FAULT HERE"


def store_raises() -> None:
    """store, load and discard fail like a defect on pages that begin with MARK."""
    store, load, discard = Store.store, Store.load, Store.discard

    def faulty_store(self: Store, first: int, data: bytes | memoryview) -> None:
        if bytes(data).startswith(MARK + b" STORE"):
            raise ZeroDivisionError("fault in store")
        store(self, first, data)

    def faulty_load(self: Store, page: int) -> bytes:
        data = load(self, page)
        if data.startswith(MARK + b" LOAD"):
            raise KeyError("fault in load")
        return data

    def faulty_discard(self: Store, first: int, count: int) -> None:
        if load(self, first).startswith(MARK + b" DISCARD"):
            raise AssertionError("fault in discard")
        discard(self, first, count)

    Store.store, Store.load, Store.discard = (  # type: ignore[method-assign]
        faulty_store, faulty_load, faulty_discard,
    )  # fmt: skip


def handler_raises() -> None:
    """A handler of pyfuse3 (open of stats.json) fails like a defect while $FAULT_FILE exists."""
    stats_json = service.Service._stats_json

    async def faulty(self: service.Service) -> bytes:
        if await trio.Path(os.environ["FAULT_FILE"]).exists():
            raise RuntimeError("fault in a handler")
        return await stats_json(self)

    service.Service._stats_json = faulty  # type: ignore[method-assign]


def unlocked() -> None:
    """mlockall is refused."""
    hardening.lock_memory = lambda: hardening.Outcome("mlockall", False, "refused by a test")


def wedged() -> None:
    """The lane answers nothing any more while $FAULT_FILE exists."""
    serve = Lane._serve

    def faulty(self: Lane, count: int) -> None:
        while Path(os.environ["FAULT_FILE"]).exists():
            time.sleep(0.05)
        serve(self, count)

    Lane._serve = faulty  # type: ignore[method-assign]


def killed_in_swapon() -> None:
    """The worker that brings the instance up dies while swap is on, and before it can say so."""
    swapon = swap.on

    def faulty_swapon(device: str, priority: int | None) -> None:
        swapon(device, priority)
        os.kill(os.getpid(), signal.SIGKILL)

    swap.on = faulty_swapon


def cannot_undo() -> None:
    """swapon reports a failure after it worked; detaching fails while $FAULT_FILE exists."""
    swapon, detach = swap.on, loop.detach

    def faulty_swapon(device: str, priority: int | None) -> None:
        swapon(device, priority)
        raise HostError("swapon", "fault after swapon")

    def faulty_detach(device: str, file: str) -> None:
        if Path(os.environ["FAULT_FILE"]).exists():
            raise HostError("detach", "fault in detach")
        detach(device, file)

    swap.on, loop.detach = faulty_swapon, faulty_detach


def bad_medium() -> None:
    """Reads or writes of a tier fail while $FAULT_FILE exists and contains their name."""
    read_into, write = FileBacking.read_into, FileBacking.write

    def fails(verb: str) -> bool:
        path = Path(os.environ["FAULT_FILE"])
        return path.exists() and verb in path.read_text()

    def faulty_read(self: FileBacking, offset: int, buffer: memoryview) -> None:
        if fails("read"):
            raise OSError(errno.EIO, "fault in read")
        read_into(self, offset, buffer)
        if fails("flip"):
            for at in range(0, len(buffer), 512):
                buffer[at] ^= 1

    def faulty_write(self: FileBacking, offset: int, buffer: memoryview) -> None:
        if fails("write"):
            raise OSError(errno.EIO, "fault in write")
        write(self, offset, buffer)

    FileBacking.read_into, FileBacking.write = (  # type: ignore[method-assign]
        faulty_read, faulty_write,
    )  # fmt: skip
    FileBacking.direct_fd = property(lambda self: -1)  # type: ignore[method-assign,assignment]


def killed_at_step() -> None:
    """SIGKILL as the step is about to be done that begins with FAULT_STEP."""
    step = Reporter.step

    def faulty(self: Reporter, text: str) -> None:
        step(self, text)
        if text.startswith(os.environ["FAULT_STEP"]):
            os.kill(os.getpid(), signal.SIGKILL)

    Reporter.step = faulty  # type: ignore[method-assign]


if __name__ == "__main__":
    globals()[sys.argv.pop(1)]()
    sys.exit(daemon.main())
