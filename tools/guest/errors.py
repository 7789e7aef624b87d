"""What can go wrong with a guest. Owns the exceptions, and how a host command's failure is told."""

import subprocess
from pathlib import Path


class GuestError(Exception):
    """Anything about guests."""


class GuestUnavailableError(GuestError):
    """There can be no guest on this host; the message says what was looked for."""


class GuestGoneError(GuestError):
    """The virtual machine ended while it was needed."""


class GuestTimeoutError(GuestError):
    """A guest did not boot, or a command did not end, in the time given."""


class GuestCommandError(GuestError):
    """A command in the guest ended with a status other than 0."""


def host_command(*argv: str | Path, timeout_s: float, stdin: str | None = None) -> str:
    """Run a command that making a guest depends on, and return its output."""
    try:
        done = subprocess.run(
            argv, input=stdin or "", capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError:
        raise GuestUnavailableError(f"no guest: {argv[0]} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise GuestUnavailableError(f"no guest: not done in {timeout_s} s: {argv}") from None
    if done.returncode:
        words = " ".join(map(str, argv))
        raise GuestUnavailableError(f"no guest: {words}: {done.stderr.strip()[-500:]}")
    return done.stdout
