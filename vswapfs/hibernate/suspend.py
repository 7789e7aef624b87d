"""Hibernates: brings the machine into a state in which nothing has to be swapped, takes the image,
writes it and powers off.

Owns the order of the steps. Always holds: at a failure before power-off the area has no image, all
tasks go on, and the kernel has its swap slots back; between freezing and thawing no page is
swapped, no file is written and nothing is printed.

    set the area aside - put others to rest - make room - take the free swap slots (the guard) -
    freeze - look at the tiers - snapshot - write - power off
"""

import ctypes
import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from vswapfs.backing.api import Backing
from vswapfs.errors import HostError
from vswapfs.format.image import Header, State, Step, TierFound
from vswapfs.hibernate import area, rest, room, tiers
from vswapfs.hibernate.reader import ImageReader
from vswapfs.hibernate.resume import kernel_name
from vswapfs.hibernate.snapshot import BusyError, NoRoomError, Snapshot, page_views
from vswapfs.hibernate.writer import ImageWriter, set_aside, write_header
from vswapfs.host import hardening, memory, swap

_TRIES: Final = 3
_IDLE_TIMEOUT_S: Final = 20.0
_IDLE_S: Final = 0.1
_POLL_S: Final = 0.01
_POWER_OFF: Final = 0x4321FEDC

_BUSY_REMEDY: Final = (
    "run this, and the instance, in other cgroups (cgroup v2) than what swaps: that is put to rest "
    "first then; or try again when less is swapped"
)

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """What has to be known of the instances that are up."""

    swap_device: str | None
    """The loop device of the instance that is swapped to; None: none is."""
    spared: set[int] = field(default_factory=set)
    """Processes that serve."""
    tier_paths: list[str] = field(default_factory=list)
    spill: Callable[[int], None] = lambda _bytes: None
    """Write so many bytes of the pool to a tier, if there is one."""


def hibernate(path: str, size_bytes: int, machine: Machine, show: Show, *, test: bool) -> Header:
    """Returns after the resume, with the header of the image that was resumed; with ``test`` at
    once. Raises VswapError, and then the machine is as it was."""
    _refuse_other_swap(machine.swap_device)
    tiers.refuse_files(machine.tier_paths)
    with area.opened(path, size_bytes) as backing:
        show(f"set the image area aside: {path}")
        empty = set_aside(backing, os.urandom(16), int(time.time()))
        os.sync()  # now that all file systems are served
        begin = time.monotonic_ns()
        with rest.at_rest(machine.spared) as cgroups:
            show(f"at rest: {len(cgroups)} cgroups")
            rested_us = (time.monotonic_ns() - begin) // 1000
            _protect()
            attempt = _Attempt(backing, empty, machine, test=test)
            attempt.writer.times_us[Step.REST] = rested_us
            return _try(attempt, show)


def _try(attempt: "_Attempt", show: Show) -> Header:
    no_room = 0
    for left in reversed(range(_TRIES)):
        attempt.clock(Step.ROOM)
        needed = room.needed_bytes(no_room)
        show(f"make room for the image: {needed >> 20} MiB")
        room.make(needed, attempt.machine.spill)
        attempt.end_clock()
        try:
            return attempt.run()
        except NoRoomError:
            no_room += 1
            if not left:
                raise
            show("the kernel found no memory for the image: once more, with more room")
        except BusyError as error:
            if not left:
                error.remedy = _BUSY_REMEDY
                raise
            show(f"{error.message}: once more")
    raise AssertionError


class _Attempt:
    """One try, from the guard on."""

    def __init__(self, backing: Backing, empty: Header, machine: Machine, *, test: bool) -> None:
        self.machine = machine
        self.writer = ImageWriter(backing)
        self.writer.warm_up()
        self._backing = backing
        self._empty = empty
        self._test = test
        self._pages = page_views(self.writer.chunk)
        self._step: Step | None = None
        self._step_began_ns = 0

    def clock(self, step: Step) -> None:
        """The time from now on is this step's."""
        self.end_clock()
        self._step, self._step_began_ns = step, time.monotonic_ns()

    def end_clock(self) -> None:
        if self._step is not None:
            spent_us = (time.monotonic_ns() - self._step_began_ns) // 1000
            self.writer.times_us[self._step] += spent_us
            self._step = None

    def run(self) -> Header:
        with Snapshot.opened(to_restore=False) as snapshot:
            self._guard(snapshot)
            self.clock(Step.FREEZE)
            snapshot.freeze()
            if self.machine.swap_device and snapshot.free_swap_bytes():
                raise BusyError("freeze the tasks", "swap slots became free meanwhile")
            self.clock(Step.FINGERPRINT)
            found = tiers.look_at(self.machine.tier_paths)
            self.clock(Step.SNAPSHOT)
            snapshot.prefer_image_bytes(memory.total_bytes())
            if not snapshot.create():
                snapshot.free()
                snapshot.thaw()
                return ImageReader(self._backing).header
            self.end_clock()
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            try:
                header = self._write(snapshot, found)
                if not self._test:
                    # From here on until it is withdrawn, no signal may end this process: the
                    # machine would go on, and a boot resume it as it was.
                    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
                    write_header(self._backing, replace(header, state=State.READY))
                    _power_off()
            except BaseException:
                write_header(self._backing, self._empty)
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            snapshot.free()
            snapshot.thaw()
            return header

    def _guard(self, snapshot: Snapshot) -> None:
        """Take all free swap slots, while the instance still serves, and let what is under way end.
        A page that the kernel swapped out after the freeze would wait for a frozen daemon, for
        good."""
        if self.machine.swap_device is None:
            return
        self.clock(Step.GUARD)
        snapshot.set_swap_area(self.machine.swap_device)
        snapshot.take_swap_slots()
        _await_idle(self.machine.swap_device)

    def _write(self, snapshot: Snapshot, found: list[TierFound]) -> Header:
        # Not to be resumed: of a test never, else not before the power goes off.
        header = Header(
            State.USED,
            self._empty.uuid,
            self._empty.created_unix_s,
            self._empty.area_bytes,
            kernel=kernel_name(),
        )
        return self.writer.write(lambda _chunk: snapshot.read_into(self._pages), header, found)


def _refuse_other_swap(device: str | None) -> None:
    others = [area for area in swap.active_areas() if area != device]
    if others:
        raise HostError(
            "look at the swap areas",
            f"{', '.join(others)} is active too: only one area can be kept from being swapped out "
            "to while all tasks are frozen",
            remedy=f"swapoff {others[0]}",
        )


def _protect() -> None:
    """Nothing of this process may have to be swapped in, or read from a file, after the freeze; and
    ctrl-Z may not stop it: all are frozen that could have it go on."""
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    hardening.spare_from_oom_killer()
    if not hardening.lock_all_memory():
        raise HostError("lock the memory", "refused", remedy="ulimit -l unlimited")
    gc.disable()


def _await_idle(device: str) -> None:
    """Until no request has been under way for a moment."""
    inflight = Path("/sys/block", device.removeprefix("/dev/"), "inflight")
    deadline_s = time.monotonic() + _IDLE_TIMEOUT_S
    idle_since_s = time.monotonic()
    while (now_s := time.monotonic()) < deadline_s:
        if inflight.read_text().split() != ["0", "0"]:
            idle_since_s = now_s
        elif now_s - idle_since_s >= _IDLE_S:
            return
        time.sleep(_POLL_S)
    raise BusyError(
        f"wait for {device}",
        f"pages still come and go after {_IDLE_TIMEOUT_S:g} s",
    )


def _power_off() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.reboot(_POWER_OFF)
    raise HostError("power off", os.strerror(ctypes.get_errno()))
