"""Stress: the worker of an instance is replaced again and again under load; what goes wrong?

Owns one instance, from its start to its end, and the load on it in a memory cgroup of its own. Ends
only processes that it started and the worker and standby of that instance, by their ids. Prints
what it found, and ends with 1 if anything is not as it has to be: a wrong byte, an I/O error, a
SIGBUS, a line in the kernel's log, something left behind. The other kinds of stress are in
stress_public.py and stress_simulate.py.
"""

import contextlib
import mmap
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import click
from cgroup import MemoryCgroup
from stress_instance import ctl, ctl_json, stressed
from stress_public import public
from stress_simulate import simulate

from vswapfs.format import instance
from vswapfs.format.session import SESSION_BYTES, Field, Session

NAME: Final = "stress"
MIB: Final = 1 << 20
ROOT: Final = Path(__file__).parent
ANSWER_TIMEOUT_S: Final = 60.0
LOAD_TIMEOUT_S: Final = 240.0
PHASES: Final = (Field.ENDED_NS, Field.SERVING_NS, Field.FIRST_REPLY_NS)


@dataclass
class Outcome:
    """What was counted."""

    kills: int = 0
    standby_kills: int = 0
    phases_ms: list[list[float]] = field(default_factory=list)
    hot_ms: list[float] = field(default_factory=list)
    cold_ms: list[float] = field(default_factory=list)
    pauses_ms: list[float] = field(default_factory=list)
    """Of restarts: from the end of the old worker until the new one serves."""
    runs: int = 0
    faults: list[str] = field(default_factory=list)

    def print(self) -> None:
        if self.kills:
            print(f"kills          {self.kills}, of these with the standby {self.standby_kills}")
        print(f"load           {self.runs} runs verified")
        for name, what, found in (
            ("hot", "kills; kill to first reply", self.hot_ms),
            ("cold", "kills; kill to first reply", self.cold_ms),
            ("restart", "times; pause", self.pauses_ms),
        ):
            if found:
                p99 = sorted(found)[min(len(found) - 1, int(len(found) * 0.99))]
                print(
                    f"{name:14} {len(found)} {what}: median {statistics.median(found):.1f} ms, "
                    f"p99 {p99:.1f} ms, most {max(found):.1f} ms"
                )
        if self.phases_ms:
            names = ("end of the old process", "taking over", "first reply")
            medians = [statistics.median(column) for column in zip(*self.phases_ms, strict=True)]
            told = ", ".join(f"{n} {ms:.1f}" for n, ms in zip(names, medians, strict=True))
            print(f"hot, medians   {told} ms")
        print(f"went wrong     {len(self.faults)}")
        for fault in self.faults:
            print(f"  {fault}")


class Killer:
    """Kills, and measures until the next answer, by the words of the session."""

    def __init__(self, outcome: Outcome, rng: random.Random, standby_share: float) -> None:
        self._outcome = outcome
        self._rng = rng
        self._standby_share = standby_share
        path = f"{instance.state_directory(NAME)}/session"
        with open(path, "rb") as file:  # noqa: PTH123
            view = memoryview(mmap.mmap(file.fileno(), SESSION_BYTES, prot=mmap.PROT_READ))
        self.session = Session(view)

    def kill(self, load: "Load") -> None:
        """One kill, and the wait for the first answer after it."""
        session, outcome = self.session, self._outcome
        worker, standby = session[Field.WORKER_PID], session[Field.STANDBY_PID]
        also = bool(standby) and self._rng.random() < self._standby_share
        is_hot = bool(standby) and session[Field.STANDBY_READY] == standby and not also
        killed_ns = time.monotonic_ns()
        os.kill(worker, signal.SIGKILL)
        if also:
            with contextlib.suppress(ProcessLookupError):
                os.kill(standby, signal.SIGKILL)
            outcome.standby_kills += 1
        outcome.kills += 1
        deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
        while session[Field.FIRST_REPLY_NS] <= killed_ns:
            if not load.keep_up():
                return  # somebody has to ask for something
            if time.monotonic() > deadline_s:
                outcome.faults.append(f"kill {outcome.kills}: no answer in {ANSWER_TIMEOUT_S} s")
                return
            time.sleep(0.001)
        pause_ms = (session[Field.FIRST_REPLY_NS] - killed_ns) / 1e6
        (outcome.hot_ms if is_hot else outcome.cold_ms).append(pause_ms)
        if is_hot:
            times = [killed_ns, *(session[at] for at in PHASES)]
            outcome.phases_ms.append([(b - a) / 1e6 for a, b in pairwise(times)])


@contextlib.contextmanager
def load(command: list[str], outcome: Outcome) -> Iterator["Load"]:
    """The load, run again and again; its last run is waited for."""
    running = Load(command, outcome)
    try:
        yield running
        running.finish()
    finally:
        running.end()


class Load:
    """A command that verifies what it wrote, in its own process group."""

    def __init__(self, command: list[str], outcome: Outcome) -> None:
        self._command = command
        self._outcome = outcome
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def keep_up(self) -> bool:
        """Start it again if it has ended; False if it ended badly."""
        if self._process.poll() is None:
            return True
        if not self._judge():
            return False
        self._process = self._start()
        return True

    def _judge(self) -> bool:
        out, _ = self._process.communicate()
        if self._process.returncode == 0:
            self._outcome.runs += 1
            return True
        self._outcome.faults.append(f"the load ended with {self._process.returncode}: {out[-600:]}")
        return False

    def finish(self) -> None:
        if self._outcome.faults:
            return
        try:
            self._process.wait(LOAD_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._outcome.faults.append(f"the load did not end within {LOAD_TIMEOUT_S:.0f} s")
        else:
            self._judge()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@click.group()
def main() -> None:
    """Stress vswapfs on this machine."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


main.add_command(public)
main.add_command(simulate)


def options(command: Callable[..., None]) -> Callable[..., None]:
    """What the commands have in common."""
    for option in (
        click.option("--mode", type=click.Choice(["workload", "fio"]), default="workload"),
        click.option("--journal", is_flag=True, help="As on a kernel that cannot resend requests."),
        click.option("--encrypt", is_flag=True, help="With tiers that are encrypted."),
        click.option("--seed", default=1, show_default=True),
    ):
        command = option(command)
    return command


@main.command()
@click.option("--rounds", default=40, show_default=True, help="How many kills.")
@click.option("--least-s", default=0.05, show_default=True, help="Shortest time between two.")
@click.option("--most-s", default=1.0, show_default=True, help="Longest time between two.")
@click.option("--standby-share", default=0.2, show_default=True, help="Kills of the standby too.")
@options
def kill(
    rounds: int,
    least_s: float,
    most_s: float,
    standby_share: float,
    seed: int,
    **how: Any,
) -> None:
    """Kill the worker under load, sometimes the standby with it.

    workload: 1 GiB in a memory cgroup of 256 MiB swaps to 2 GiB with a pool limit of 256 MiB and a
    file tier. fio: random reads and writes of the mounted file with verification.
    """
    outcome, rng = Outcome(), random.Random(seed)

    def strike(running: "Load") -> None:
        killer = Killer(outcome, rng, standby_share)
        while outcome.kills < rounds and not outcome.faults and running.keep_up():
            time.sleep(rng.uniform(least_s, most_s))
            killer.kill(running)

    under_load(outcome, strike, seed=seed, **how)


@main.command()
@click.option("--rounds", default=100, show_default=True, help="How many restarts.")
@options
def restart(rounds: int, **how: Any) -> None:
    """`vswapctl restart` under the same load, again and again."""
    outcome = Outcome()

    def strike(running: "Load") -> None:
        while len(outcome.pauses_ms) < rounds and not outcome.faults and running.keep_up():
            done = ctl("restart", NAME)
            if done.returncode:
                outcome.faults.append(f"restart: {done.stderr}")
                return
            (status,) = ctl_json("status", NAME)
            outcome.pauses_ms.append(status["last_pause_ms"])

    under_load(outcome, strike, **how)


def under_load(
    outcome: Outcome,
    strike: Callable[["Load"], None],
    *,
    seed: int,
    journal: bool,
    encrypt: bool,
    mode: str,
) -> None:
    """Bring an instance and its load up, strike, and see what is left. Does not return."""
    options = ["--size", "2G", "--pool-limit", "256M", *(["--encrypt"] if encrypt else [])]
    with (
        stressed(
            NAME, outcome.faults, *options, tier_size="2G",
            VSWAPFS_FORCE="journal" if journal else "",
        ),
        MemoryCgroup(256 * MIB) as group,
    ):  # fmt: skip
        command = workload_command(group, seed) if mode == "workload" else fio_command(seed)
        if mode == "fio":
            ctl_swapoff()
        with load(command, outcome) as running:
            (status,) = ctl_json("status", NAME)
            print(f"survival       {status['survival']}")
            strike(running)
    outcome.print()
    sys.exit(bool(outcome.faults))


def workload_command(group: MemoryCgroup, seed: int) -> list[str]:
    return [
        sys.executable, str(ROOT / "workload.py"), "--size", "1G", "--seed", str(seed),
        "--touches", "20000", "--cgroup-procs", str(group.procs_path),
    ]  # fmt: skip


def fio_command(seed: int) -> list[str]:
    return [
        "fio", "--name=stress", f"--filename={instance.mountpoint(NAME)}/swap", "--size=256M",
        "--rw=randrw", "--bsrange=4k-128k", "--direct=1", "--ioengine=libaio", "--iodepth=16",
        "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--fallocate=none",
        f"--randseed={seed}", "--buffer_compress_percentage=50", "--refill_buffers",
    ]  # fmt: skip


def ctl_swapoff() -> None:
    """fio is to have the file for itself."""
    (status,) = ctl_json("status", NAME)
    subprocess.run(["swapoff", status["loop_device"]], check=True)
    subprocess.run(["losetup", "--detach", status["loop_device"]], check=True)


if __name__ == "__main__":
    main()
