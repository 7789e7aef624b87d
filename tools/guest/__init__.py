"""A virtual machine with a Debian kernel and this checkout in it: `with Guest() as guest`.

Owns nothing itself: `kernels.py` has the kernels, `image.py` the files, `qemu.py` the machine,
`agent.py` and `init.sh` run inside.
"""

from guest.commands import Result, Running
from guest.errors import (
    GuestCommandError,
    GuestError,
    GuestGoneError,
    GuestTimeoutError,
    GuestUnavailableError,
)
from guest.qemu import Guest

__all__ = [
    "Guest",
    "GuestCommandError",
    "GuestError",
    "GuestGoneError",
    "GuestTimeoutError",
    "GuestUnavailableError",
    "Result",
    "Running",
]
