"""python -m vswapfs.daemon: started by the commands, not by people.

run CONFIG          serve; report steps, then Ready or Failure, on stdout; log to a file
foreground CONFIG   serve; log to stderr
takedown NAME [--force]   clean up what a daemon that is gone (or wedged) left behind
"""

import contextlib
import sys

from vswapfs.daemon.report import Reporter
from vswapfs.errors import HostError, VswapError
from vswapfs.format.message import Done, Failure, decode_config


def main() -> int:
    reporter = Reporter(to_pipe=sys.argv[1] != "foreground")
    try:
        match sys.argv[1:]:
            case ["run" | "foreground" as mode, config]:
                from vswapfs.daemon.service import run

                return run(decode_config(config), reporter, log_to_stderr=mode == "foreground")
            case ["takedown", name, *force]:
                from vswapfs.daemon.takedown import take_down_dead

                take_down_dead(name, reporter.step, force=bool(force))
                reporter.end(Done())
                return 0
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except VswapError as error:
        with contextlib.suppress(HostError):
            reporter.end(Failure(error.message, error.remedy, error.exit_code))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
