"""Limits of a process (setrlimit) that would end or stop one that serves for long.

Owns which ones. They come from whoever starts an instance, and all its processes inherit them.
Lifts those that it may lift; never goes on with one that it may not.
"""

import resource
from typing import Final

from vswapfs.errors import HostError

FILES_MIN: Final = 512
"""Open files that a worker may need: most are tiers (255) and connections (32)."""

_UNLIMITED: Final = {
    "RLIMIT_AS": "ulimit -v",
    "RLIMIT_CPU": "ulimit -t",
    "RLIMIT_DATA": "ulimit -d",
    "RLIMIT_FSIZE": "ulimit -f",
}
"""Those that must not be, and how a shell sets them."""


def lift() -> None:
    """Raises HostError, with the limit that may not be lifted."""
    infinity = resource.RLIM_INFINITY
    for name, command in _UNLIMITED.items():
        which = getattr(resource, name)
        try:
            resource.setrlimit(which, (infinity, infinity))
        except (OSError, ValueError):  # without CAP_SYS_RESOURCE
            limit = resource.getrlimit(which)[1]
            raise HostError(
                "start",
                f"{name} is {limit}, and an instance must have none",
                remedy=f"{command} unlimited, where that may be done",
            ) from None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES_MIN), max(hard, FILES_MIN)))
    except (OSError, ValueError):
        raise HostError(
            "start",
            f"{hard} open files are too few: an instance may need {FILES_MIN}",
            remedy=f"ulimit -n {FILES_MIN}, where that may be done",
        ) from None
