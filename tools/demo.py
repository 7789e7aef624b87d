"""The demo: known pages go through vswapfs and come back, while their way is shown.

Owns the story. Never speaks to the daemon but through vswapctl, as a user would,
and never reports success that was not checked: every byte by the workload, the teardown by looking
at the host. Always holds: however it ends, the workload, its cgroup and the instance are taken
down; and it ends, since every command and the whole have a time limit.
"""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple, Self

from cgroup import MemoryCgroup, MemoryCgroupError
from demo_screen import (
    Figures,
    Screen,
    choose_descriptors,
    count_states,
    descriptors_table,
    memory_table,
    one_line,
    rates_table,
    states_table,
)

from vswapfs.format import instance
from vswapfs.units import PAGE_BYTES, parse_size_bytes

ROOT: Final = Path(__file__).resolve().parent.parent
VSWAPCTL: Final = ROOT / ".venv/bin/vswapctl"
WORKLOAD: Final = ROOT / "tools/workload.py"

NAME: Final = "demo"
AREA: Final = "1G"
MEMORY: Final = "768M"
LIMIT: Final = "192M"
MIX: Final = "zero:1,same:1,text:6,random:2"
TOUCHES: Final = 40000
DESCRIBED_BYTES: Final = 2 << 20  # one cluster of the kernel
DESCRIBED_STEP_BYTES: Final = 64 << 20
ENOUGH_DESCRIPTORS: Final = 6  # two of each of three states

COMMAND_TIMEOUT_S: Final = 20.0
RUN_TIMEOUT_S: Final = 120  # about 20 s on a machine that does nothing else
POLL_INTERVAL_S: Final = 1.0  # a poll costs a tenth of a second of one core
POLL_TIMEOUT_S: Final = 3.0
ENDING_TIMEOUT_S: Final = 2.0

ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)

DEATHS: Final = {
    -signal.SIGBUS: "was killed by SIGBUS: a page could not be read back from swap",
    -signal.SIGKILL: "was killed by SIGKILL: out of memory in its cgroup",
}


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Ended(BaseException):
    """Somebody wants the demo to end: ctrl-C or a signal. No error of anything shown."""


# -- what is asked of vswapctl and of the host ---------------------------------------------------


def vswapctl(*words: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run a command and return what it said. Raises DemoError if it fails or takes too long."""
    command = f"vswapctl {' '.join(words)}"
    try:
        done = subprocess.run(
            [VSWAPCTL, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            # So that ctrl-C reaches only us, and we take down what the command has set up.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise DemoError(f"{command}: no end after {timeout_s:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or "nothing said"
        raise DemoError(f"{command} ended with {done.returncode}: {said}")
    return (done.stderr + done.stdout).strip()


def ask(*words: str) -> Any:
    return json.loads(vswapctl(*words, "--json"))


def command_output(*words: str) -> str:
    done = subprocess.run(
        words, stdout=subprocess.PIPE, text=True, timeout=COMMAND_TIMEOUT_S, check=True
    )
    return done.stdout


def descendants(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in children.read_text().split()]
    return found


def start_time(pid: int) -> str | None:
    """With the id this names one process for ever; None when it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else rest[18]


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


class StatsPoller:
    """Keeps the latest stats while the workload runs; a failed poll keeps the ones before."""

    def __init__(self) -> None:
        self.latest: Figures | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(POLL_TIMEOUT_S)

    def _poll(self) -> None:
        while not self._stopping.wait(POLL_INTERVAL_S):
            with contextlib.suppress(DemoError):
                self.latest = json.loads(
                    vswapctl("stats", NAME, "--json", timeout_s=POLL_TIMEOUT_S)
                )


# -- the story -----------------------------------------------------------------------------------


class Peak(NamedTuple):
    """What vswapctl said when all was filled and the workload waited."""

    stats: Figures
    status: Figures
    daemon_bytes: int
    described_range: str
    described: list[Figures]


class Demo:
    """What was started, so that it can be taken down from any point."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self._ours = False
        self._workload: subprocess.Popen[str] | None = None
        self._loop_device: str | None = None
        self._daemon: dict[int, str | None] = {}

    def run(self, group: MemoryCgroup) -> None:
        """Tell the whole story. Raises DemoError or Ended; what was set up is still there then."""
        if Path(instance.directory(NAME)).exists():
            raise DemoError(f"an instance named {NAME} is there already: vswapctl off {NAME}")
        self.screen.say(
            f"A process with {MEMORY} of known pages in a memory cgroup of {LIMIT}:\n"
            "three quarters of it have to be swapped out, and every byte to come back.\n"
        )
        self._on()
        self._show(*self._run_workload(group))

    def _on(self) -> None:
        words = ["on", NAME, "--size", AREA]
        # The kernel's default priority is below that of areas which are on already.
        if len(Path("/proc/swaps").read_text().splitlines()) > 1:
            words += ["--priority", "32767"]
        self._ours = True
        self.screen.command(" ".join(words), vswapctl(*words))
        (status,) = ask("status", NAME)
        self._loop_device = status["loop_device"]
        self._daemon = {pid: start_time(pid) for pid in descendants(status["pid"])}

    def _run_workload(self, group: MemoryCgroup) -> tuple[Peak, list[Figures]]:
        command = [sys.executable, str(WORKLOAD), "--json", "--hold", "--size", MEMORY]
        command += ["--mix", MIX, "--touches", str(TOUCHES)]
        command += ["--cgroup-procs", str(group.procs_path)]
        self.screen.head("The workload: zero, same-filled, text and random pages, 1:1:6:2")
        workload = self._workload = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with StatsPoller() as poller, self.screen.live(lambda: poller.latest):
            peak, result = self._follow(workload)
            _, complaint = workload.communicate(timeout=COMMAND_TIMEOUT_S)
        code = workload.returncode
        if peak is None or result is None:
            raise DemoError(
                f"the workload {DEATHS.get(code, f'ended with {code}')} {complaint}".strip()
            )
        if code or result["mismatch_count"]:
            first = "".join(f"\n    {mismatch}" for mismatch in result["mismatches"])
            raise DemoError(f"{result['mismatch_count']} pages came back wrong:{first}")
        return peak, result["phases"]

    def _follow(self, workload: "subprocess.Popen[str]") -> tuple[Peak | None, Figures | None]:
        """Show its progress; return the peak and its result, None for what it did not reach."""
        assert workload.stdout is not None
        assert workload.stdin is not None
        peak = result = None
        for text in workload.stdout:
            line = json.loads(text)
            if "result" in line:
                result = line["result"]
                continue
            self.screen.progress(line)
            if line["phase"] == "hold":
                peak = self._look_at_peak()
                workload.stdin.write("go on\n")
                workload.stdin.flush()
        return peak, result

    def _look_at_peak(self) -> Peak:
        stats = ask("stats", NAME)
        if not sum(count_states(stats).values()):
            raise DemoError("nothing was swapped to vswapfs: see /proc/swaps for another area")
        self.screen.say(f"  {one_line(stats)}", "dim")
        (status,) = ask("status", NAME)
        return Peak(stats, status, resident_bytes(status["pid"]), *self._describe_some())

    def _describe_some(self) -> tuple[str, list[Figures]]:
        """Look for a place that has pages of several states; the kernel fills where it likes."""
        found: list[tuple[str, list[Figures]]] = []
        for start in range(0, parse_size_bytes(AREA), DESCRIBED_STEP_BYTES):
            described_range = f"{start:#x}-{start + DESCRIBED_BYTES:#x}"
            chosen = choose_descriptors(ask("desc", NAME, described_range))
            found.append((described_range, chosen))
            if len(chosen) >= ENOUGH_DESCRIPTORS:
                break
        return max(found, key=lambda each: len(each[1]))

    def _show(self, peak: Peak, phases: list[Figures]) -> None:
        stats = ask("stats", NAME)
        self.screen.table("Where the pages were when all was filled", states_table(peak.stats))
        self.screen.table(
            "What that took", memory_table(peak.stats, peak.status, peak.daemon_bytes)
        )
        self.screen.table(
            f"Some of them: vswapctl desc {NAME} {peak.described_range}",
            descriptors_table(peak.described),
        )
        self.screen.table("How fast it was, swapping included", rates_table(phases))
        errors = stats["checksum_errors"]
        checked = sum(phase["bytes"] for phase in phases if phase["phase"] != "fill")
        self.screen.head("Every byte compared")
        self.screen.say(
            f"  {checked // PAGE_BYTES:,} pages compared whole, 0 wrong; {errors} checksum errors\n"
            f"  {stats['pages']['stored_total']:,} pages went out,"
            f" {stats['pages']['loaded_total']:,} came back in"
        )
        if errors:
            raise DemoError(f"{errors} checksum errors")

    def take_down(self) -> list[str]:
        """Take everything down that was set up; return what is left all the same."""
        if not self._ours:
            return []
        self.screen.head("Taking it down")
        problems = self._end_workload()
        if Path(instance.directory(NAME)).exists():
            try:
                self.screen.command(f"off {NAME}", vswapctl("off", NAME))
            except DemoError as error:
                problems.append(str(error))
        if Path(instance.directory(NAME)).exists():
            try:
                said = vswapctl("off", NAME, "--force", timeout_s=2 * COMMAND_TIMEOUT_S)
                self.screen.command(f"off {NAME} --force", said)
            except DemoError as error:
                problems.append(str(error))
        left = self._leftovers()
        if not left:
            self.screen.say(
                "  Nothing is left: no swap area, loop device, mount, process,"
                f" {instance.directory(NAME)}."
            )
        return problems + [f"left behind: {each}" for each in left]

    def _end_workload(self) -> list[str]:
        """End it before swapoff, which would have to bring all its pages back in."""
        if self._workload is None or self._workload.poll() is not None:
            return []
        self._workload.kill()
        try:
            self._workload.wait(ENDING_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # it hangs in a page fault; off --force ends that
            return [f"the workload (process {self._workload.pid}) could not be killed"]
        return []

    def _leftovers(self) -> list[str]:
        deadline_s = time.monotonic() + ENDING_TIMEOUT_S
        while (left := self._look_for_leftovers()) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return left

    def _look_for_leftovers(self) -> list[str]:
        directory = instance.directory(NAME)
        swaps = Path("/proc/swaps").read_text().splitlines()
        loops = command_output("losetup", "-l", "-n", "-O", "NAME,BACK-FILE").splitlines()
        mounts = Path("/proc/mounts").read_text().splitlines()
        left = [
            f"swap area {line}" for line in swaps if line.split()[0] == (self._loop_device or "")
        ]
        left += [f"loop device {line}" for line in loops if f"{directory}/" in line]
        left += [f"mount {line}" for line in mounts if f" {directory}/" in line]
        left += [
            f"process {pid}"
            for pid, began in self._daemon.items()
            if began is not None and start_time(pid) == began
        ]
        if Path(directory).exists():
            left.append(directory)
        return left


def end(number: int, _frame: FrameType | None) -> None:
    ignore_signals()
    if number == signal.SIGALRM:
        raise DemoError(f"no end after {RUN_TIMEOUT_S} s")
    raise Ended(f"ended by {signal.Signals(number).name}")


def ignore_signals() -> None:
    """For the teardown, which has time limits of its own. Commands do not inherit this."""
    signal.alarm(0)
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: None)


def main() -> int:
    began_s = time.monotonic()
    screen = Screen()
    demo = Demo(screen)
    for number in ENDING_SIGNALS:
        signal.signal(number, end)
    signal.alarm(RUN_TIMEOUT_S)
    failures = []
    try:
        # The cgroup goes last: a workload that hangs in a page fault leaves it only when the
        # instance has been taken away by force.
        with MemoryCgroup(parse_size_bytes(LIMIT)) as group:
            try:
                demo.run(group)
            except (DemoError, Ended, OSError) as error:
                failures.append(str(error))
            finally:
                ignore_signals()
                failures += demo.take_down()
    except MemoryCgroupError as error:
        failures.append(str(error))
    seconds = time.monotonic() - began_s
    screen.say("")
    if screen.failure:
        failures.append(f"it could not be shown: {screen.failure.strerror}")
    if failures:
        screen.say(f"The demo failed after {seconds:.0f} s:", "bold red")
        for failure in failures:
            screen.say(f"  {failure}")
        return 1
    screen.say(f"Done in {seconds:.0f} s, nothing lost, nothing left.", "bold green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
