"""Start of a daemon, and the teardown of what a dead or wedged one left.

Owns the command lines of vswapfs.daemon that vswapctl starts, and the pipe on which they
report. Never touches the host itself: mounting, swapon and clearing up are the daemon's work.
When a function here returns or raises, the pipe is closed; only after Ready is the process left.
"""

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vswapfs.ctl import client
from vswapfs.errors import HostError, InstanceError, VswapError
from vswapfs.format import instance
from vswapfs.format.message import Answer, Config, Done, Ready, Step, encode

Show = Callable[[str], None]

_DAEMON: Final = (sys.executable, "-P", "-m", "vswapfs.daemon")
_END_TIMEOUT_S: Final = 60.0
_UNDO_TIMEOUT_S: Final = 5.0


def command_line(mode: str, config: Config) -> list[str]:
    """The arguments that start a daemon in this mode."""
    return [*_DAEMON, mode, encode(config).decode().strip()]


def start(config: Config, show: Show) -> Ready:
    """Start a detached daemon and wait until its instance is up; ``show`` gets each step.

    On KeyboardInterrupt the daemon undoes its work and is waited for.

    Raises the error that the daemon reports, or InstanceError if it ends without a report.
    """
    answer = _follow(command_line("run", config), config.name, show)
    if not isinstance(answer, Ready):
        raise _no_answer(config.name, "gave the wrong answer", command_line("run", config))
    return answer


def takedown(name: str, show: Show, *, force: bool) -> None:
    """Clear up what a dead daemon left; ``force`` also ends a wedged one, and loses its pages.

    Raises the error that is reported, or InstanceError if there is no report.
    """
    command = [*_DAEMON, "takedown", instance.check_name(name), *(["--force"] if force else [])]
    if not isinstance(_follow(command, name, show), Done):
        raise _no_answer(name, "gave the wrong answer", command)


def adopt(name: str, show: Show) -> None:
    """Start a supervisor for a worker that has none, and leave it.

    Raises the error that is reported, or InstanceError if there is no report.
    """
    command = [*_DAEMON, "adopt", instance.check_name(name)]
    if not isinstance(_follow(command, name, show, leave_when_done=True), Done):
        raise _no_answer(name, "gave the wrong answer", command)


def _follow(command: list[str], name: str, show: Show, *, leave_when_done: bool = False) -> Answer:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise HostError(
            "start the daemon", error.strerror or "", remedy="see ulimit -n; ulimit -u"
        ) from None
    try:
        answer = _read(process, name, show)
    except VswapError:
        _wait(process)
        raise
    except KeyboardInterrupt:
        # The pipe is closed by now. One that was ready before it could see that is told.
        show("interrupted: waiting until all is undone")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_UNDO_TIMEOUT_S)
        process.terminate()
        if _wait(process) is None:
            raise InstanceError(
                f"interrupted, but process {process.pid} has not ended",
                remedy=f"vswapctl status {name}",
            ) from None
        raise
    if answer is None:
        status = _wait(process)
        raise _no_answer(name, _ending(status), command)
    if isinstance(answer, Ready) or (leave_when_done and isinstance(answer, Done)):
        _leave(process)
    else:
        _wait(process)
    return answer


def _read(process: "subprocess.Popen[bytes]", name: str, show: Show) -> Answer | None:
    assert process.stdout is not None
    with process.stdout as pipe:
        for line in pipe:
            answer = client.read_answer(name, line)
            if not isinstance(answer, Step):
                return answer
            show(answer.text)
    return None


def _wait(process: "subprocess.Popen[bytes]") -> int | None:
    try:
        return process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _leave(process)
        return None


def _leave(process: "subprocess.Popen[bytes]") -> None:
    # Without a return code Popen warns, when it is collected, of the process we mean to leave.
    process.returncode = 0


def _ending(status: int | None) -> str:
    if status is None:
        return "stopped reporting"
    return f"ended with status {status}" if status >= 0 else f"was killed by signal {-status}"


def _no_answer(name: str, what: str, command: list[str]) -> InstanceError:
    log = Path(instance.log_path(name))
    return InstanceError(
        f"the daemon of {name} {what}, without saying why",
        remedy=f"see {log}" if log.exists() else f"it left no log; run {shlex.join(command)}",
    )
