"""An instance under stress: brought up, and seen from outside: commands to it, its health, the
kernel's complaints, and what it left behind.

Owns the instance and the file of its tier, from `on` to `off`; never the load.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import kernel_log

from vswapfs.format import instance
from vswapfs.fuse import mount

BIN: Final = Path(sys.executable).parent
CTL_TIMEOUT_S: Final = 200
SUSPICIOUS: Final = ("I/O error", "Bus error", "hung", "blocked for", "BUG", "WARNING", "Oops")


class NotAnsweringError(Exception):
    """A command to the instance failed; the message says which, and how."""


@contextlib.contextmanager
def stressed(
    name: str, faults: list[str], *options: str, tier_size: str, **environment: str
) -> Iterator[str]:
    """An instance with a tier on a file; yields its loop device. Then it is swapped off; what was
    wrong with it, and what the kernel complained of or is left, is added to the faults."""
    mark = kernel_log.mark()
    with tempfile.TemporaryDirectory(prefix=f"vswapfs-{name}-", dir="/var/tmp") as directory:
        up = ctl("on", name, *options, "--tier", f"{directory}/tier:{tier_size}", **environment)
        if up.returncode:
            raise click.ClickException(up.stderr)
        try:
            yield up.stdout.strip()
            faults += unhealthy(name)
            said = last_words(name)  # off removes it
            down = ctl("off", name)
            if down.returncode:
                faults.append(f"off: {down.stderr}")
            if faults:
                faults += said
        except NotAnsweringError as error:
            faults += [str(error), *last_words(name)]
        finally:
            ctl("off", name, "--force")
    faults += complaints(mark)
    faults += left_behind(name)


def ctl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "vswapctl"), *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=CTL_TIMEOUT_S,
            env={**os.environ, **environment},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        said = f"{' '.join(arguments)}: not done within {CTL_TIMEOUT_S} s"
        return subprocess.CompletedProcess(command, 124, "", said)


def ctl_json(*arguments: str) -> Any:
    """What a command prints as JSON. Raises NotAnsweringError."""
    done = ctl(*arguments, "--json")
    if done.returncode:
        raise NotAnsweringError(f"{' '.join(arguments)}: {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def complaints(mark: int) -> list[str]:
    """What the kernel logged from a mark on and ought not to."""
    return [
        f"kernel: {line}"
        for line in kernel_log.since(mark)
        if any(word in line for word in SUSPICIOUS)
    ]


def last_words(name: str) -> list[str]:
    """The end of the instance's log."""
    with contextlib.suppress(OSError):
        return Path(instance.log_path(name)).read_text().splitlines()[-40:]
    return []


def unhealthy(name: str) -> list[str]:
    """What is wrong with an instance that serves."""
    found = []
    check = ctl("check", name)
    if check.returncode:
        found.append(f"check: {check.stdout}{check.stderr}")
    stats = json.loads(ctl("stats", name, "--json").stdout or "{}")
    counted = ("checksum_errors", "internal_errors", "damaged_descriptors")
    return found + [f"{key}: {stats[key]}" for key in counted if stats.get(key)]


def left_behind(name: str) -> list[str]:
    found = []
    if mount.find(name):
        found.append("left: a mount")
    if Path(instance.directory(name)).exists():
        found.append(f"left: {instance.directory(name)}")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"vswapfs.daemon" in words and name.encode() in words:
                found.append(f"left: process {process.name}")
    return found
