"""Runs util-linux commands (losetup, mkswap, swapon, swapoff). The only place that does.

Never blocks for ever: a command that does not end in its time is killed and reported.
"""

import os
import shutil
import signal
import subprocess
from typing import Final

from vswapfs.errors import HostError

TIMEOUT_S: Final = 30.0


def run(step: str, *argv: str, timeout_s: float | None = TIMEOUT_S, remedy: str = "") -> str:
    """Return what the command printed.

    Raises HostError with the step, the command's own last words, and the remedy.
    """
    try:
        result = subprocess.run(
            [shutil.which(argv[0], path=_path()) or argv[0], *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise HostError(
            step, f"{argv[0]} is not installed", remedy="apt install util-linux mount"
        ) from None
    except OSError as error:
        raise HostError(
            step, f"{argv[0]} cannot be run: {error.strerror}", remedy="see free; ulimit -u"
        ) from None
    except subprocess.TimeoutExpired:
        raise HostError(step, f"{argv[0]} did not end within {timeout_s} s") from None
    if result.returncode != 0:
        words = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise HostError(
            step, words[-1] if words else _ended(argv[0], result.returncode), remedy=remedy
        )
    return result.stdout.strip()


def _path() -> str:
    """These commands are in sbin, which cron and the like leave out."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _ended(name: str, status: int) -> str:
    if status == -signal.SIGKILL:
        return f"{name} was killed; if by the OOM killer, there is not enough memory"
    return f"{name} ended with {status}"
