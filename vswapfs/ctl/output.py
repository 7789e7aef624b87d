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
        _fail(name, error)
    except SystemExit:
        try:
            sys.stdout.flush()
        except OSError as error:
            _fail(name, error)
        raise


def give_up() -> None:
    """What is still to be written goes nowhere, or Python complains of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _fail(name: str, error: OSError) -> None:
    with contextlib.suppress(OSError):
        print(f"{name}: write the output: {error.strerror}", file=sys.stderr, flush=True)
    give_up()
    sys.exit(EXIT_CODE)
