"""`vswapctl restart` and `vswapctl adopt`: another worker, another supervisor, and swap goes on.

Owns how they are asked for and judged. Never ends a process: the supervisor does.
"""

import contextlib
import time
from typing import Final

from vswapfs.ctl import client, instances, launch
from vswapfs.errors import InstanceError
from vswapfs.format.message import AskRestart, AskStatus, Status, Step

_RESTART_TIMEOUT_S: Final = 90.0
_NEW_WORKER_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.02


def restart(name: str, show: launch.Show) -> Status:
    """Have a fresh worker of the installed version take over; the status of that one.

    Raises what the worker before it reports: then that one serves on.
    """
    before = client.ask(name, AskStatus(), Status)
    # It hangs up when it is replaced; anything else that it says is an error.
    with contextlib.suppress(client.HungUpError):
        for answer in client.answers(name, AskRestart(), _RESTART_TIMEOUT_S):
            if isinstance(answer, Step):
                show(answer.text)
    deadline_s = time.monotonic() + _NEW_WORKER_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(InstanceError):  # not yet at its socket
            now = client.ask(name, AskStatus(), Status)
            if now.worker_pid != before.worker_pid:
                return now
        if instances.find(name) is not instances.State.RUNNING:
            break
        time.sleep(_POLL_S)
    raise InstanceError(
        f"{name}: the fresh worker does not answer", remedy=f"vswapctl status {name}, and its log"
    )


def adopt(name: str, show: launch.Show) -> None:
    """Give a worker whose supervisor was killed a new one. Raises what launch.adopt raises, and
    InstanceError if there is no such worker."""
    instances.check_living(name)
    launch.adopt(name, show)
