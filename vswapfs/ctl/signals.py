"""Signals that end a command which goes on until then, and has something to finish.

Owns which these are: ctrl-C, SIGTERM, and SIGHUP, which comes when the terminal is closed. Never
handles one: a handler runs in the middle of whatever the program does, and may wait for itself.
"""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def kept() -> Iterator[set[signal.Signals]]:
    """They wait until somebody looks, by sigwait or sigtimedwait. Those that are ignored, as by
    nohup, still are. Threads that are started meanwhile get none of them."""
    numbers = {
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield numbers
    finally:
        while signal.sigtimedwait(numbers, 0):
            pass  # what comes while it ends is the same wish
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
