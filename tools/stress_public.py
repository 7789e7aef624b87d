"""Public stress programs on an instance of ours: do their own checks pass, and ours after them?

Owns one instance after another, each with a pool that is too small and a tier behind it, and a
memory cgroup for the program, so that nothing else of the machine swaps. A program is given its
time; what does not end by itself then is ended. Nothing is left.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import click
from cgroup import MemoryCgroup
from rich.console import Console
from rich.table import Table
from stress_instance import NotAnsweringError, ctl_json, stressed

NAME: Final = "public"
MIB: Final = 1 << 20
CGROUP_BYTES: Final = 64 * MIB
PATIENCE_S: Final = 300
"""Beyond its time, for a program to verify and to end."""

LEAST_PAGES: Final = 1000
"""Fewer pages stored, and the program has not swapped."""


class Suite(NamedTuple):
    """A program, how it is called for so many seconds, and what its output must have."""

    program: str
    package: str
    command: Callable[[int], str]
    must_say: str = ""
    must_not_say: str = "FAIL"
    runs_until_ended: bool = False


def _stress_ng(stressors: str, before: str = "") -> Suite:
    return Suite(
        "stress-ng",
        "stress-ng",
        lambda seconds: f"{before}stress-ng {stressors} --verify --timeout {seconds}",
        must_say="successful run completed|passed: [1-9]",
        must_not_say="stress-ng: (fail|error)",
    )


def _until_ended(program: str, package: str, command: str, must_say: str = "") -> Suite:
    return Suite(program, package, lambda _: command, must_say, runs_until_ended=True)


# memtester would lock its memory, which then cannot be swapped: it does without when it may not.
_MAY_NOT_LOCK: Final = "prlimit --memlock=0 setpriv --bounding-set=-ipc_lock"

# Beside what writes pages of zeros, which newer kernels (6.12) do not bring to a swap device.
_VM: Final = "--vm 1 --vm-bytes 128M --vm-keep"

SUITES: Final = {
    "vm": _stress_ng(_VM),
    "pageswap": _stress_ng("--pageswap 2"),
    "bigheap": _stress_ng(f"--bigheap 1 --bigheap-growth 4M {_VM}", "prlimit --as=512000000 "),
    "mremap": _stress_ng(f"--mremap 1 --mremap-bytes 128M {_VM}"),
    "fork": _stress_ng(f"--fork 2 {_VM}"),
    "memtester": _until_ended(
        "memtester", "memtester", f"{_MAY_NOT_LOCK} memtester 80M", r"setting +[1-9]"
    ),
    "memhog": _until_ended("memhog", "numactl", "memhog -r10000 128M", r"\.\."),
    "fio": Suite(
        "fio",
        "fio",
        lambda _: (
            "fio --name=public --filename={device} --size=1G --rw=randwrite --bsrange=4k-128k"
            " --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1"
            " --verify_state_save=0 --buffer_compress_percentage=50 --refill_buffers"
        ),
        must_say="err= 0",
        must_not_say="verify: bad|verify failed",
    ),
}


class Result(NamedTuple):
    seconds: float
    stored_pages: int
    loaded_pages: int
    tier_bytes: int
    faults: list[str]


@click.command()
@click.argument("suites", nargs=-1, type=click.Choice(list(SUITES)))
@click.option("--seconds", default=20, show_default=True, help="How long each one runs.")
def public(suites: tuple[str, ...], seconds: int) -> None:
    """Run public stress programs: all of them, or SUITES.

    stress-ng (vm, pageswap, bigheap, mremap, fork), memtester and memhog in a memory cgroup of
    64 MiB that swaps to an instance with a pool of 16 MiB and a file tier; fio's verify job on its
    loop device.
    """
    table = Table("suite", "seconds", "stored", "loaded", "to tiers", "result", box=None)
    went_wrong = False
    for name in suites or SUITES:
        suite = SUITES[name]
        if not shutil.which(suite.program):
            table.add_row(name, "", "", "", "", f"skipped: the package {suite.package} is missing")
            continue
        print(f"{name}: {suite.command(seconds)}", file=sys.stderr, flush=True)
        result = run(suite, seconds)
        went_wrong |= bool(result.faults)
        row = (
            f"{result.seconds:.0f}", f"{result.stored_pages} pages",
            f"{result.loaded_pages} pages", f"{result.tier_bytes / MIB:.0f} MiB",
            "\n".join(result.faults) or "passed",
        )  # fmt: skip
        print(f"{name}: {', '.join(row)}", file=sys.stderr, flush=True)
        table.add_row(name, *row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    sys.exit(went_wrong)


def run(suite: Suite, seconds: int) -> Result:
    """One program on an instance of its own."""
    faults: list[str] = []
    options = (
        "--size", "1G", "--pool-limit", "16M",
        "--priority", "32767",  # before all other areas of this machine
    )  # fmt: skip
    with stressed(NAME, faults, *options, tier_size="1G") as device:
        if "{device}" in suite.command(seconds):
            subprocess.run(["swapoff", device], check=True)
        began_s = time.monotonic()
        with MemoryCgroup(CGROUP_BYTES) as group:
            command = suite.command(seconds).format(device=device).split()
            faults += judge(suite, *execute(suite, command, seconds, str(group.procs_path)))
            spent_s = time.monotonic() - began_s
        stored_pages, loaded_pages, tier_bytes = moved(faults)
        if stored_pages < LEAST_PAGES:
            faults.append(f"only {stored_pages} pages were swapped")
    return Result(spent_s, stored_pages, loaded_pages, tier_bytes, faults)


def moved(faults: list[str]) -> tuple[int, int, int]:
    """Pages stored and loaded, and bytes that went to the tier: none if it does not say."""
    try:
        stats = ctl_json("stats", NAME)
    except NotAnsweringError as error:
        faults.append(str(error))
        return 0, 0, 0
    pages = stats["pages"]
    written_bytes = stats["disk"]["segments_written_total"] * MIB
    return pages["stored_total"], pages["loaded_total"], written_bytes


def execute(suite: Suite, command: list[str], seconds: int, procs_path: str) -> tuple[int, str]:
    """Its status, or 0 if it was ended in its time, and its output."""
    in_cgroup = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', procs_path, *command]
    process = subprocess.Popen(
        in_cgroup, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True, cwd="/var/tmp",
    )  # fmt: skip
    try:
        out, _ = process.communicate(
            timeout=seconds if suite.runs_until_ended else seconds + PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        return (0 if suite.runs_until_ended else -signal.SIGKILL), out
    else:
        return process.returncode, out
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def judge(suite: Suite, status: int, out: str) -> list[str]:
    """What is wrong with it."""
    text = re.sub(r"\x08+", " ", out)  # memtester writes over what it said
    faults = []
    if status:
        faults.append(f"it ended with {status}")
    if found := re.search(f".*({suite.must_not_say}).*", text):
        faults.append(f"it says: {found[0]}")
    if not re.search(suite.must_say, out):
        faults.append(f"it does not say {suite.must_say!r}")
    return [*faults, text.strip()[-600:]] if faults else []
