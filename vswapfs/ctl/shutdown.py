"""Taking an instance down: by asking its daemon, and by force where that cannot be.

Owns the order of attempts and the question whether a silent swapoff still makes progress. Never
forces a daemon that answers: one that reports that swapoff failed still has everybody's pages.
On return the instance is down and the process of its daemon has gone.
"""

import time
from pathlib import Path
from typing import Final

from vswapfs import procfs
from vswapfs.ctl import client, instances, launch
from vswapfs.errors import InstanceError, VswapError
from vswapfs.format import instance, swaps
from vswapfs.format.message import AskOff, AskStatus, Status, Step

_PATIENCE_S: Final = 60.0
_FORCE_PATIENCE_S: Final = 10.0
_AGAIN_S: Final = 0.2
_LOOK_TIMEOUT_S: Final = 2.0
_LOOP_DEVICES: Final = Path("/sys/block")
_SWAPS: Final = Path("/proc/swaps")


def off(name: str, show: launch.Show, *, force: bool) -> None:
    """Take the instance down; ``show`` gets each step.

    Raises InstanceError if there is none, NotAnsweringError if its daemon is silent and ``force``
    is not given, and what the daemon reports, of which the commonest is HostError: no memory for
    swapoff. After that the instance is still in use.
    """
    if instances.find(name) is None:
        raise instances.no_such_instance(name)
    deadline_s = time.monotonic() + _FORCE_PATIENCE_S
    while (state := instances.find(name)) is instances.State.RUNNING:
        try:
            _ask(name, show, _FORCE_PATIENCE_S if force else _PATIENCE_S)
            return
        except client.NotAnsweringError as error:
            if not force:
                raise
            # One that hung up, or is not to be reached, may be about to have a successor.
            if isinstance(error, client.SilentError) or time.monotonic() > deadline_s:
                show(f"{error.message}; taking it down by force")
                break
            time.sleep(_AGAIN_S)
        except InstanceError:
            if instances.find(name) is instances.State.RUNNING:
                raise  # else it has just died
    if state is instances.State.DEAD:
        show("its daemon is dead: clearing up")
    if state is not None:
        launch.takedown(name, show, force=force)


def _ask(name: str, show: launch.Show, patience_s: float) -> None:
    lock = instances.open_lock(name)
    if lock is None:
        raise instances.no_such_instance(name)
    with lock:
        swapoff = _Swapoff(_mountpoint(name))
        for answer in client.answers(name, AskOff(), patience_s, swapoff.moves):
            if isinstance(answer, Step):
                show(answer.text)
        if not instances.wait_released(lock, patience_s):
            raise client.NotAnsweringError(
                f"{name} is switched off, but its process has not ended",
                remedy=f"vswapctl off {name} --force",
            )


def _mountpoint(name: str) -> str:
    try:
        return client.ask(name, AskStatus(), Status, _LOOK_TIMEOUT_S).mountpoint
    except VswapError:
        return instance.mountpoint(name)  # where `on` mounts; whether it answers AskOff counts


class _Swapoff:
    """Tells whether swap use of the instance went down since it was last asked.

    swapoff of a full area takes minutes in one step. Forcing it would kill whoever has pages
    there, so the kernel's own figures decide, which need no answer of the daemon.
    """

    def __init__(self, mountpoint: str) -> None:
        self._backing_file = f"{mountpoint}/{instance.SWAP_FILE}"
        self._used_bytes = self._read_used_bytes()

    def moves(self) -> bool:
        before_bytes, self._used_bytes = self._used_bytes, self._read_used_bytes()
        return self._used_bytes < before_bytes

    def _read_used_bytes(self) -> int:
        devices = {f"/dev/{loop}" for loop in self._loops()}
        areas = swaps.parse(procfs.lines(_SWAPS)).values()
        return sum(area.used_bytes for area in areas if area.device in devices)

    def _loops(self) -> list[str]:
        found = []
        for path in _LOOP_DEVICES.glob("loop*/loop/backing_file"):
            try:
                backing_file = procfs.lines(path)
            except OSError:  # detached since it was listed
                continue
            if backing_file == [self._backing_file]:
                found.append(path.parts[-3])
        return found
