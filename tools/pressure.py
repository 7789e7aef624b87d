"""In a guest: the whole machine is short of memory, and all of it swaps to vswapfs.

Run by `tools/vm pressure`, and nowhere else: it can hang the machine, which is what it looks for.
Owns one instance from its start to its end, hogs that verify every byte of what they hold, and a
heartbeat: an ordinary process, neither locked nor spared, that wants to do a little every 100 ms.
Ends with 1, and says why, if anything but a hog was killed, a byte was wrong, or the heartbeat was
silent for as long as a hung task may be. A task that hangs ends the guest: the kernel panics.

`--without` changes the guest's copy of a source file, so that a protection can be seen missing;
there is no such option of the product's.
"""

import argparse
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from vswapfs.daemon.lock import processes
from vswapfs.format import instance
from vswapfs.format.session import WORDS_BYTES, Field, Session
from vswapfs.host import hardening
from vswapfs.units import PAGE_BYTES

NAME: Final = "pressure"
ROOT: Final = Path(__file__).resolve().parent.parent
HALF_BYTES: Final = PAGE_BYTES // 2
STAMPS: Final = HALF_BYTES // 8
BEAT_S: Final = 0.1
BEAT_BYTES: Final = 1 << 20
"""What the heartbeat touches of its own each time."""
HUNG_TASK_S: Final = 60
SILENT_S: Final = 20
"""So long may the heartbeat be silent before the kernel is asked to print who waits for what."""
PROGRESS_S: Final = 10
TOUCHES: Final = 2000
NO_MEMORY: Final = ("there is not enough memory", f": -{signal.SIGKILL}:")
"""Said by `off`, or of it: the OOM killer ended swapoff, or the command itself."""
SPARED: Final = "-1000"

LAST_BEAT, WORST_BEAT, BEATS, LAST_TOLD, FIRST_HOG = range(5)
"""Words that the processes share; of each hog two: pages verified, pages wrong."""


class Change(NamedTuple):
    """Of a source file in the guest: what takes a protection away."""

    path: str
    was: str
    becomes: str


PROTECTIONS: Final[dict[str, tuple[Change, ...]]] = {
    "mlockall": (
        Change("vswapfs/host/hardening.py", "_libc.mlockall(_MCL_CURRENT_FUTURE_ONFAULT)", "0"),
        Change("vswapfs/host/hardening.py", "_libc.mlockall(_MCL_CURRENT_FUTURE)", "0"),
    ),
    "io_flusher": (
        Change("vswapfs/host/hardening.py", "_libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0)", "0"),
    ),
    "oom_score_adj": (
        Change("vswapfs/host/hardening.py", 'score.write_text("-1000")', 'score.write_text("0")'),
    ),
    "direct_io": (Change("vswapfs/host/loop.py", '"--direct-io=on"', '"--direct-io=off"'),),
    "memory_in_hand": (
        Change("vswapfs/daemon/forehand.py", "self._ram.warm_up = self._warm_up", "pass"),
        Change("vswapfs/daemon/forehand.py", "IN_HAND_SEGMENTS: Final = 8", "IN_HAND_SEGMENTS = 0"),
        Change("vswapfs/daemon/forehand.py", "store.begin_cluster, store.end_cluster", "_, _"),
    ),
    "heap_in_hand": (Change("vswapfs/daemon/service.py", "hardening.fill_heap()", "pass"),),
    "no_boost": (Change("vswapfs/daemon/service.py", "boost.hold_off(config.name)", "pass"),),
    "relief": (Change("vswapfs/host/rescue.py", "self._relief.give_back()", "0"),),
    "rescue": (
        Change("vswapfs/daemon/supervisor.py", "and not self._rescue_refused", "and False"),
    ),
    "scrub_waits": (
        Change("vswapfs/daemon/scrub.py", "and self._memory.can_spare_some()", "and True"),
    ),
    "short_queue": (Change("vswapfs/host/loop.py", "values[for_swap]", "values[0]"),),
}


class _TimeIsUpError(Exception):
    pass


def switch_off(protection: str) -> None:
    for change in PROTECTIONS[protection]:
        path = ROOT / change.path
        text = path.read_text()
        if text.count(change.was) != 1:
            sys.exit(f"pressure: {change.path} does not have once: {change.was}")
        path.write_text(text.replace(change.was, change.becomes))


class Shared:
    """Words of all processes; never swapped out, as the driver has them locked."""

    def __init__(self, hog_count: int) -> None:
        self.words = memoryview(mmap.mmap(-1, PAGE_BYTES)).cast("Q")
        self.hog_count = hog_count

    def totals(self) -> tuple[int, int]:
        """Pages that were verified, and that were wrong."""
        last = FIRST_HOG + 2 * self.hog_count
        return sum(self.words[FIRST_HOG:last:2]), sum(self.words[FIRST_HOG + 1 : last : 2])


# -- processes -------------------------------------------------------------------------------------


def as_any_other() -> None:
    """The OOM killer may choose this process. Its memory may be swapped out as it is."""
    Path("/proc/self/oom_score_adj").write_text("0")


def as_no_other() -> None:
    Path("/proc/self/oom_score_adj").write_text(SPARED)
    assert hardening.lock_memory().ok


def in_child(body: Callable[[], None], prepare: Callable[[], None] = as_no_other) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        prepare()
        body()
        status = 0
    except BaseException as error:
        print(f"pressure: {error!r}", file=sys.stderr)
    finally:
        os._exit(status)


def beat(shared: Shared, report_fd: int, deadline_s: float) -> None:
    memory = mmap.mmap(-1, BEAT_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    words, between_ms, count = shared.words, array("I"), 0
    before_s = time.monotonic()
    while before_s < deadline_s:
        count += 1
        for at in range(0, BEAT_BYTES, PAGE_BYTES):
            memory[at] = count & 0xFF
        time.sleep(BEAT_S)
        now_s = time.monotonic()
        between_ms.append(int((now_s - before_s) * 1000))
        words[WORST_BEAT] = max(words[WORST_BEAT], between_ms[-1])
        words[LAST_BEAT], words[BEATS] = int(now_s * 1000), count
        before_s = now_s
    between = sorted(between_ms)
    percentiles = {str(p): between[int((len(between) - 1) * p / 100)] for p in (50, 99)}
    os.write(report_fd, json.dumps(percentiles).encode())


def watch_over(shared: Shared, deadline_s: float) -> None:
    """Have the kernel print who waits for what when the heartbeat is silent. Opens nothing and
    allocates nothing by then, so that it can say so when nothing else can."""
    words = shared.words
    with Path("/proc/sysrq-trigger").open("wb", buffering=0) as trigger:
        while (now_s := time.monotonic()) < deadline_s + HUNG_TASK_S:
            if now_s - min(words[LAST_BEAT], words[LAST_TOLD]) / 1000 > SILENT_S:
                trigger.writelines((b"w", b"m"))
                time.sleep(SILENT_S)
            time.sleep(1)


class Hog:
    """Memory whose every page is known: half of it random, half its number and version. Made of as
    few steps as Python can, because what a page costs here is what the kernel gets to do less."""

    def __init__(self, words: memoryview, at: int, size_bytes: int, deadline_s: float) -> None:
        self._words, self._at, self._deadline_s = words, at, deadline_s
        self._pages = size_bytes // PAGE_BYTES
        self._memory = mmap.mmap(
            -1, self._pages * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self._versions = array("I", bytes(4 * self._pages))
        self._rng = random.Random(at)
        self._bytes = self._rng.randbytes(1 << 20)

    def run(self) -> None:
        """Fill all, then verify all of it and touch it at random, until the time is up."""
        with suppress(_TimeIsUpError):
            self._each(range(self._pages), self._put)
            while True:
                self._each(range(self._pages), self._verify)
                self._each(self._rng.choices(range(self._pages), k=TOUCHES), self._touch)

    def _each(self, numbers: Sequence[int], step: Callable[[int], None]) -> None:
        for at, number in enumerate(numbers):
            step(number)
            if not at % 64 and time.monotonic() > self._deadline_s:
                raise _TimeIsUpError

    def _page(self, number: int) -> bytes:
        window = number * 1021 % ((1 << 20) - HALF_BYTES)
        stamp = self._versions[number] << 32 | number
        return self._bytes[window : window + HALF_BYTES] + stamp.to_bytes(8, "little") * STAMPS

    def _put(self, number: int) -> None:
        self._memory[number * PAGE_BYTES : (number + 1) * PAGE_BYTES] = self._page(number)

    def _verify(self, number: int) -> None:
        found = self._memory[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        self._words[self._at] += 1
        self._words[self._at + 1] += found != self._page(number)

    def _touch(self, number: int) -> None:
        self._verify(number)
        self._versions[number] += 1
        self._put(number)


# -- the machine -----------------------------------------------------------------------------------


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


def table(path: str) -> dict[str, int]:
    """Of /proc/meminfo (KiB) or /proc/vmstat."""
    lines = (line.replace(":", " ").split() for line in Path(path).read_text().splitlines())
    return {line[0]: int(line[1]) for line in lines}


def command(*words: str, timeout_s: float = 120) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=timeout_s,
        preexec_fn=as_any_other,  # with nobody whom it may kill, the OOM killer ends the machine
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


class Trial:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._faults: list[str] = []
        self._hogs: dict[int, int] = {}
        """Which hog a process is."""
        self._killed = 0
        self._worker_kills = 0

    def run(self) -> dict[str, Any]:
        total_kib = table("/proc/meminfo")["MemTotal"]
        self._on(total_kib // 1024)
        before = table("/proc/vmstat")
        daemon = sorted(processes(NAME))
        self._press(total_kib * 1024)
        after = table("/proc/vmstat")
        if not self._worker_kills and (now := sorted(processes(NAME))) != daemon:
            self._faults.append(f"processes of the daemon were {daemon} and are {now}")
        pages, wrong = self._shared.totals()
        if wrong:
            self._faults.append(f"{wrong} pages are wrong")
        oom_kills = after["oom_kill"] - before["oom_kill"]
        # Those that were there at the end we killed ourselves, and perhaps another did before.
        if not self._killed <= oom_kills <= self._killed + self._options.hogs:
            self._faults.append(f"{oom_kills} OOM kills, but {self._killed} hogs were killed")
        result = {
            "pages_in": after["pswpin"] - before["pswpin"],
            "pages_out": after["pswpout"] - before["pswpout"],
            "oom_kills": oom_kills,
            "verified_pages": pages,
            "wrong_pages": wrong,
            "beats": int(self._shared.words[BEATS]),
            "between_beats_ms": {
                **self._percentiles, "most": int(self._shared.words[WORST_BEAT])
            },
        }  # fmt: skip
        return {**result, **self._off(), "faults": self._faults}

    def _on(self, total_mib: int) -> None:
        options = self._options
        for protection in options.without:
            switch_off(protection)
        size = f"{int(total_mib * (options.factor + 1))}M"
        words = ["--size", size]
        if options.pool_limit:
            words += ["--pool-limit", options.pool_limit]
        if options.tier:
            words += ["--tier", f"{options.tier}:{size}"]
        if "mlockall" in options.without:
            words.append("--allow-unlocked")
        command("vswapctl", "on", NAME, *words)
        print(command("vswapctl", "status", NAME).rstrip(), flush=True)
        if options.kill_every:
            if not Path(instance.state_directory(NAME)).exists():
                sys.exit("pressure: --kill-every: nobody succeeds a worker before Linux 6.4")
            with Path(instance.state_directory(NAME), "session").open("rb") as session:
                view = mmap.mmap(session.fileno(), WORDS_BYTES, prot=mmap.PROT_READ)
            self._session = Session(memoryview(view))

    def _press(self, total_bytes: int) -> None:
        options = self._options
        write("/proc/sys/kernel/hung_task_timeout_secs", str(HUNG_TASK_S))
        write("/proc/sys/kernel/hung_task_panic", "1")
        as_no_other()
        self._shared = shared = Shared(options.hogs)
        self._hog_bytes = int(total_bytes * options.factor) // options.hogs
        self._began_s = time.monotonic()
        self._deadline_s = deadline_s = self._began_s + options.seconds
        report_fd, heartbeat_fd = os.pipe()
        shared.words[LAST_BEAT] = shared.words[LAST_TOLD] = int(self._began_s * 1000)
        watchman = in_child(lambda: watch_over(shared, deadline_s))
        heartbeat = in_child(lambda: beat(shared, heartbeat_fd, deadline_s), as_any_other)
        os.close(heartbeat_fd)
        for number in range(options.hogs):
            self._start_hog(number)
        self._watch(heartbeat)
        os.kill(watchman, signal.SIGKILL)
        os.waitpid(watchman, 0)
        for pid in self._hogs:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._percentiles = json.loads(os.read(report_fd, 1 << 16) or b"{}")

    def _start_hog(self, number: int) -> None:
        words, size, end_s = self._shared.words, self._hog_bytes, self._deadline_s
        pid = in_child(lambda: Hog(words, FIRST_HOG + 2 * number, size, end_s).run(), as_any_other)
        self._hogs[pid] = number

    def _watch(self, heartbeat: int) -> None:
        """Until the heartbeat has ended, as it does when the time is up."""
        told_s = self._began_s
        kill_at_s = self._began_s + (self._options.kill_every or float("inf"))
        worst_ms = 0
        while True:
            time.sleep(0.5)
            now_s = time.monotonic()
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                if pid == heartbeat:
                    if status:
                        self._faults.append(f"the heartbeat ended with status {status}")
                    return
                number = self._hogs.pop(pid)
                if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                    self._killed += 1
                elif status:
                    self._faults.append(f"a hog ended with status {status}")
                if now_s < self._deadline_s:
                    self._start_hog(number)
            last_s = self._shared.words[LAST_BEAT] / 1000
            self._shared.words[LAST_TOLD] = int(now_s * 1000)
            if now_s - last_s > HUNG_TASK_S and worst_ms < HUNG_TASK_S * 1000:
                worst_ms = HUNG_TASK_S * 1000
                self._faults.append(f"the heartbeat was silent for {HUNG_TASK_S} s")
            if now_s - self._deadline_s > HUNG_TASK_S:
                self._faults.append("the heartbeat did not end in time")
                os.kill(heartbeat, signal.SIGKILL)
            if kill_at_s <= now_s < self._deadline_s:
                kill_at_s = now_s + self._options.kill_every
                os.kill(self._session[Field.WORKER_PID], signal.SIGKILL)
                self._worker_kills += 1
            if now_s - told_s >= PROGRESS_S:
                told_s = now_s
                self._tell(now_s, last_s)

    def _tell(self, now_s: float, last_s: float) -> None:
        vm, memory = table("/proc/vmstat"), table("/proc/meminfo")
        pages, wrong = self._shared.totals()
        print(
            f"{now_s - self._began_s:4.0f} s  free {memory['MemFree'] >> 10:4}M  "
            f"available {memory['MemAvailable'] >> 10:4}M  shmem {memory['Shmem'] >> 10:4}M  "
            f"locked {memory['Mlocked'] >> 10:4}M  swapped "
            f"{memory['SwapTotal'] - memory['SwapFree'] >> 10:4}M  out {vm['pswpout']:7}  "
            f"in {vm['pswpin']:7}  killed {self._killed:3}  verified {pages:7}  wrong {wrong}  "
            f"beat {now_s - last_s:4.1f} s ago, most {self._shared.words[WORST_BEAT] / 1000:.1f} s",
            flush=True,
        )

    def _off(self) -> dict[str, Any]:
        ended = "well"
        try:
            findings = command("vswapctl", "check", NAME).strip()
            stats = json.loads(command("vswapctl", "stats", NAME, "--json"))
            (status,) = json.loads(command("vswapctl", "status", NAME, "--json"))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            self._faults.append(str(error))
            return {}
        try:
            command("vswapctl", "off", NAME, timeout_s=300)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            if not any(words in str(error) for words in NO_MEMORY):
                self._faults.append(str(error))
                return {}
            ended = NO_MEMORY[0]  # what was swapped before there were hogs; it is still served
        if findings != "all invariants hold":
            self._faults.append(findings)
        if status["takeovers"] != self._worker_kills:
            self._faults.append(f"{self._worker_kills} kills, {status['takeovers']} takeovers")
        for name in ("checksum_errors", "internal_errors"):
            if stats[name]:
                self._faults.append(f"{name}: {stats[name]}")
        return {
            "off": ended,
            "takeovers": status["takeovers"],
            "refused_stores": stats["refusals"]["pool_full"],
            "parked_stores": stats["requests"]["parked"],
            "written_back": stats["disk"]["segments_written_total"],
        }


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description="Run by tools/vm pressure.")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--factor", type=float, default=2)
    parser.add_argument("--hogs", type=int, default=2)
    parser.add_argument("--pool-limit")
    parser.add_argument("--tier")
    parser.add_argument("--kill-every", type=float)
    parser.add_argument("--without", action="append", default=[], choices=PROTECTIONS)
    options = parser.parse_args()
    if "guest_checkout=" not in Path("/proc/cmdline").read_text():
        sys.exit(
            "pressure: this may hang the machine, so it runs in a guest only: tools/vm pressure"
        )
    result = Trial(options).run()
    print(json.dumps({"result": result}), flush=True)
    sys.exit(1 if result["faults"] else 0)


if __name__ == "__main__":
    main()
