"""An instance under stress, seen from outside: commands to it, its health, the kernel's complaints,
and what it left behind. Owns none of it.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import kernel_log

from vswapfs.format import instance
from vswapfs.fuse import mount

BIN: Final = Path(sys.executable).parent
CTL_TIMEOUT_S: Final = 200
SUSPICIOUS: Final = ("I/O error", "Bus error", "hung", "blocked for", "BUG", "WARNING", "Oops")


class NotAnsweringError(Exception):
    """A command to the instance failed; the message says which, and how."""


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
