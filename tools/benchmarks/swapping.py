"""Processes in a memory cgroup that swap to a device: running them, and holding them still.

Owns their command lines and time limits. One that hangs because its device does not answer any more
is freed by giving the device up.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from cgroup import MemoryCgroup

from benchmarks.host import ROOT, BenchError, HangError, run, time_limit
from benchmarks.peers import Device
from vswapfs.host import swap

WORKLOAD: Final = str(ROOT / "tools/workload.py")
HOG: Final = str(Path(__file__).with_name("hog.py"))
USEMEM: Final = str(Path(__file__).with_name("usemem.py"))
HELD_MIX: Final = "text:6,random:2"
"""Of pages that are held: without those of one pattern, which take no room."""

TIMEOUT_S: Final = 300.0


def run_workload(
    group: MemoryCgroup, device: Device, size_bytes: int, touches: int
) -> dict[str, Any]:
    """tools/workload.py to its end; its phases by name. Every byte is compared on the way."""
    said = run_on(
        device, sys.executable, WORKLOAD, "--json", "--size", str(size_bytes),
        "--touches", str(touches), "--cgroup-procs", str(group.procs_path),
    )  # fmt: skip
    result = json.loads(said.splitlines()[-1])["result"]
    return {phase["phase"]: phase for phase in result["phases"]}


def fill_with_ff(group: MemoryCgroup, device: Device, size_bytes: int) -> float:
    """Fill so much memory with 0xff; MB/s."""
    return float(run_on(device, sys.executable, HOG, str(group.procs_path), str(size_bytes)))


def use_memory(
    group: MemoryCgroup, device: Device, size_bytes: int, processes: int, touches: int
) -> dict[str, float]:
    """Fill so much memory in so many processes, touch it at random, free it; seconds by step."""
    figures = (str(figure) for figure in (size_bytes, processes, touches))
    said = run_on(device, sys.executable, USEMEM, str(group.procs_path), *figures)
    took_s: dict[str, float] = json.loads(said)
    return took_s


def in_group(group: MemoryCgroup, *argv: str) -> tuple[str, ...]:
    """The command, made to move into the cgroup first."""
    return ("sh", "-c", 'echo 0 >"$0" && exec "$@"', str(group.procs_path), *argv)


def run_on(device: Device, *argv: str) -> str:
    """Run what needs the device to go on: if it hangs, the device is given up."""
    try:
        return run(*argv, timeout_s=TIMEOUT_S)
    except HangError:
        device.abort()
        raise


class Holder:
    """A process whose pages have been swapped out to the device, and sits still."""

    def __init__(self, process: subprocess.Popen[str], device: Device) -> None:
        self._process = process
        self._device = device

    def wait_until_filled(self) -> None:
        with self._time_limit():
            assert self._process.stdout
            if not any('"hold"' in line for line in self._process.stdout):
                raise BenchError("the workload did not come to its hold")
        if not swap.active_areas()[self._device.path].used_bytes:
            raise BenchError(f"nothing was swapped to {self._device.path}")

    def go_on(self) -> None:
        """Have it verify all it holds, touch it at random, and verify it again."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def wait_until_verified(self) -> None:
        """After go_on: wait for its end. Raises BenchError if a byte was wrong."""
        with self._time_limit():
            assert self._process.stdout
            last = [line for line in self._process.stdout if line.strip()][-1]
        if self._process.wait(TIMEOUT_S):
            raise BenchError(f"the workload found wrong bytes, or was killed: {last}")

    def end(self) -> float:
        """Kill it; returns the seconds that it took to end, which is freeing its memory."""
        with self._time_limit():
            began_s = time.monotonic()
            self._process.kill()
            self._process.wait()  # with a timeout it would look only every 50 ms
            return time.monotonic() - began_s

    def _time_limit(self) -> AbstractContextManager[None]:
        return time_limit(TIMEOUT_S, self._give_up)

    def _give_up(self) -> None:
        self._device.abort()
        self._process.kill()


@contextmanager
def held_pages(
    group: MemoryCgroup,
    device: Device,
    size_bytes: int,
    *,
    mix: str = HELD_MIX,
    touches: int = 0,
) -> Iterator[Holder]:
    """So much memory in a process in the cgroup; most of it swapped out, if its limit is low."""
    command = [
        sys.executable, WORKLOAD, "--json", "--hold", "--touches", str(touches), "--size",
        str(size_bytes), "--mix", mix, "--cgroup-procs", str(group.procs_path),
    ]  # fmt: skip
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        holder = Holder(process, device)
        try:
            holder.wait_until_filled()
            yield holder
        finally:
            holder.end()
