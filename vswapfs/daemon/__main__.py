"""python -m vswapfs.daemon: started by the commands, not by people.

run CONFIG          start an instance; report steps, then Ready or Failure, on stdout; log to a file
foreground CONFIG   the same; log to stderr
takedown NAME [--force]   clean up what a daemon that is gone (or wedged) left behind
adopt NAME          be the supervisor of a worker that has none

and by these, with descriptors that they inherit (handover.py):

supervise NAME FDS [PID PIDFD]   what ``run`` and ``adopt`` become
worker NAME FDS, standby NAME FDS   what the supervisor starts
"""

import contextlib
import sys

from vswapfs.daemon.handover import Handed
from vswapfs.errors import HostError, VswapError

# Imports only what the mode needs: the supervisor is to be small.


def main() -> int:
    match sys.argv[1:]:
        case ["supervise", name, fds, *worker]:
            from vswapfs.daemon import supervisor

            return supervisor.run(name, Handed.parse(fds), *map(int, worker))
        case ["worker" | "standby" as mode, _name, fds]:
            from vswapfs.daemon import worker as program

            return program.run(Handed.parse(fds), standby=mode == "standby")
        case ["run" | "foreground" | "takedown" | "adopt", *_]:
            return _command()
    print(__doc__, file=sys.stderr)
    return 2


def _command() -> int:
    from vswapfs.daemon.report import Reporter
    from vswapfs.format.message import Done, Failure, decode_config

    reporter = Reporter(to_pipe=sys.argv[1] != "foreground")
    try:
        match sys.argv[1:]:
            case ["takedown", name, *force]:
                from vswapfs.daemon.takedown import take_down_dead

                take_down_dead(name, reporter.step, force=bool(force))
                reporter.end(Done())
            case ["adopt", name]:
                from vswapfs.daemon.adopt import adopt

                adopt(name, reporter)
            case [mode, config]:
                from vswapfs.daemon import prepare

                prepare.start(decode_config(config), reporter, foreground=mode == "foreground")
    except VswapError as error:
        with contextlib.suppress(HostError):
            reporter.end(Failure(error.message, error.remedy, error.exit_code))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
