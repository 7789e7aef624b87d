"""What the daemon tells the command that started it, before there is a control socket.

Owns the daemon's stdout. With a pipe it speaks message lines; else words on stderr.
"""

import os
import sys

from vswapfs.errors import HostError
from vswapfs.format.message import Done, Failure, Ready, Step, encode


class Reporter:
    """Reports steps, then exactly one end."""

    def __init__(self, *, to_pipe: bool) -> None:
        self._to_pipe = to_pipe

    def step(self, text: str) -> None:
        """Say what is about to be done.

        Raises HostError when nobody listens any more: whoever started us gave up, so undo.
        """
        if self._to_pipe:
            try:
                os.write(1, encode(Step(text)))
            except OSError as error:
                raise HostError(text, f"the command that asked for it is gone: {error}") from None
        else:
            print(f"vswapfs: {text}", file=sys.stderr, flush=True)

    def end(self, message: Ready | Done | Failure) -> None:
        """Say how it ended, and let go of the pipe.

        Raises HostError when nobody listens any more, as step does.
        """
        if not self._to_pipe:
            if isinstance(message, Failure):
                print(f"vswapfs: {message.message}", file=sys.stderr)
                if message.remedy:
                    print(f"  try: {message.remedy}", file=sys.stderr)
            return
        try:
            os.write(1, encode(message))
        except OSError as error:
            raise HostError("report", f"the command that asked for it is gone: {error}") from None
        finally:
            null = os.open("/dev/null", os.O_WRONLY)
            os.dup2(null, 1)
            os.close(null)
