"""Every error vswapfs raises on purpose, with its errno and its exit code.

An error names the value, the rule and the remedy. Each class says what is still usable after it.
Errors that are not of this tree are defects; they are answered with EIO, counted and logged.
"""

import errno


class VswapError(Exception):
    """Base of the tree. ``errno`` answers a kernel request, ``exit_code`` ends a command."""

    errno: int = errno.EIO
    exit_code: int = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class UsageError(VswapError):
    """Bad input: a size, a name, an offset, an option. Nothing was started or changed."""

    errno = errno.EINVAL
    exit_code = 2


class HostError(VswapError):
    """A step on the host failed (mount, losetup, swapon, ...). Says which step and why.

    What was set up before the step is still there; whoever called undoes it.
    """

    exit_code = 3

    def __init__(self, step: str, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{step}: {message}", remedy=remedy)
        self.step = step


class InstanceError(VswapError):
    """No such instance, name already in use, or a daemon that does not answer, is dead, or is of
    another version."""

    errno = errno.ENOENT
    exit_code = 4


class PermissionRefusedError(VswapError):
    """The caller is not root."""

    errno = errno.EPERM
    exit_code = 5


class TierFormatError(VswapError):
    """Bytes of a tier that are not what they have to be: not a tier, another version, damaged.
    Nothing was read from them or changed."""

    errno = errno.EINVAL
    exit_code = 6


class RecordingError(VswapError):
    """A recording that is not what it has to be: none, of another version, damaged, cut short.
    What came before the place that the error names was good."""

    errno = errno.EINVAL
    exit_code = 6


class ImageFormatError(VswapError):
    """There is no hibernation image that may be resumed: none, another version, another kernel's,
    used, or damaged. Nothing of it was restored."""

    errno = errno.EINVAL
    exit_code = 7


class PoolFullError(VswapError):
    """A store found no room below the pool limit. The page's earlier contents are still there;
    loads, discards and stores of filled pages go on."""

    errno = errno.ENOSPC


class LostPageError(VswapError):
    """A page whose record cannot be verified. Its bytes are never returned; every other page,
    and a new store to this one, still work."""

    errno = errno.EIO

    def __init__(self, page: int, message: str) -> None:
        super().__init__(message)
        self.page = page


class UnmountedError(VswapError):
    """The mount is gone, and with it whoever would have done it. Nothing was done."""


class OutOfRangeError(VswapError):
    """A request reaches beyond the end of the area. Nothing was changed."""

    errno = errno.EFBIG
