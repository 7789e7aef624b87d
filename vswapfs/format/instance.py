"""Names and paths of an instance: what the daemon and the commands have to agree on.

Owns the rule for names and the layout below /run/vswapfs/NAME (mode 0700):

    lock      held (flock) by the daemon's processes while one of them lives; contains the
              supervisor's process id
    control   the control socket, mode 0600
    mnt       the mount point of `vswapctl on`, with the swap file in it
    log       what the daemon has to say
    device    a link to the loop device that `vswapctl on` attached, as long as it is
    state     a tmpfs with the files that outlive the worker
"""

import re
from typing import Final

from vswapfs.errors import UsageError

RUN_DIRECTORY: Final = "/run/vswapfs"
DEFAULT_NAME: Final = "vswap0"
SWAP_FILE: Final = "swap"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


def check_name(name: str) -> str:
    """Return the name, or raise UsageError that states the rule."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a name: 1 to 32 letters, digits, - and _, first a letter or digit",
            remedy=f"for example {DEFAULT_NAME}",
        )
    return name


def directory(name: str) -> str:
    return f"{RUN_DIRECTORY}/{check_name(name)}"


def lock_path(name: str) -> str:
    return f"{directory(name)}/lock"


def control_path(name: str) -> str:
    return f"{directory(name)}/control"


def mountpoint(name: str) -> str:
    """Where `vswapctl on` mounts the instance."""
    return f"{directory(name)}/mnt"


def log_path(name: str) -> str:
    return f"{directory(name)}/log"


def device_link(name: str) -> str:
    return f"{directory(name)}/device"


def state_directory(name: str) -> str:
    return f"{directory(name)}/state"
