"""What a command does where its output cannot be written.

Owns standard output and error being there at all. Always holds: a command that has done its work
does not end with a traceback for want of someone to tell.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

EXIT_CODE = 3


@contextlib.contextmanager
def guarded(name: str) -> Iterator[None]:
    """Around the whole command. Ends with EXIT_CODE, and says why, if standard output is full."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by whoever called
            setattr(sys, stream, Path(os.devnull).open("w"))  # noqa: SIM115 - for good
    try:
        yield
    except OSError as error:
        if error.filename is not None:  # of a write there is none
            raise
        _give_up(name, error)
    except SystemExit:
        try:
            sys.stdout.flush()
        except OSError as error:
            _give_up(name, error)
        raise


def _give_up(name: str, error: OSError) -> None:
    with contextlib.suppress(OSError):
        print(f"{name}: write the output: {error.strerror}", file=sys.stderr, flush=True)
    # Or Python tries to write it once more at its end, and complains.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(EXIT_CODE)
