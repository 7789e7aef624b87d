"""Commands and processes of a benchmark, each with a time limit.

Owns running things and reading how much processor they took. Never waits for ever: a process that
is stuck in the kernel is left to whoever ends the device that it waits for.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).resolve().parents[2]
BIN: Final = ROOT / ".venv/bin"
VSWAPCTL: Final = str(BIN / "vswapctl")
MIB: Final = 1 << 20
TIMEOUT_S: Final = 60.0


class BenchError(Exception):
    """This cannot be measured here; the message says why."""


class HangError(BenchError):
    """Something did not end in its time; it may wait for a device that does not answer."""


def run(*argv: str, timeout_s: float = TIMEOUT_S) -> str:
    """Return what the command printed. Raises BenchError if it fails, HangError if it hangs."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # So that ctrl-C reaches only us, and what is under way is taken down in order.
            start_new_session=True,
        )
    except FileNotFoundError:
        raise BenchError(f"{argv[0]} is not installed") from None
    name = Path(argv[0]).name
    try:
        said, complained = process.communicate(timeout=timeout_s)
    except BaseException as error:
        # All that it started too; and no wait: one may be stuck in the kernel.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if isinstance(error, subprocess.TimeoutExpired):
            raise HangError(f"{name}: no end after {timeout_s:.0f} s") from None
        raise
    if process.returncode:
        words = " ".join((complained.strip() or said.strip() or "nothing said").splitlines()[-2:])
        code = process.returncode
        end = signal.Signals(-code).name if code < 0 else str(code)
        raise BenchError(f"{name} ended with {end}: {words}")
    return said.strip()


def json_of(*argv: str, timeout_s: float = TIMEOUT_S) -> Any:
    """What a command said in JSON."""
    return msgspec.json.decode(run(*argv, timeout_s=timeout_s))


def vswapctl_json(*words: str) -> Any:
    """What ``vswapctl WORDS --json`` said."""
    return json_of(VSWAPCTL, *words, "--json")


def timed_s(*argv: str, timeout_s: float = TIMEOUT_S) -> float:
    """How long a command took."""
    started_s = time.monotonic()
    run(*argv, timeout_s=timeout_s)
    return time.monotonic() - started_s


@contextmanager
def time_limit(seconds: float, give_up: Callable[[], None]) -> Iterator[None]:
    """Call ``give_up``, which has to free what hangs in the body, when the body takes longer."""
    timer = threading.Timer(seconds, give_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def cpu_s(pids: Iterable[int]) -> float:
    """Processor time that these processes have used, all their threads.

    From schedstat, in nanoseconds: /proc/PID/stat counts ticks of 10 ms, which over 10 s is just
    the 0.1 % that is looked for.
    """
    files = [file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def wait_until_idle(pids: Iterable[int], timeout_s: float = 10.0) -> None:
    """Wait until these processes do nothing to speak of, or the time is over."""
    pids = tuple(pids)
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        before_s = cpu_s(pids)
        time.sleep(0.1)
        if cpu_s(pids) - before_s < 0.005:
            return
