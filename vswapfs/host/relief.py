"""Memory that is given back to the machine when swap stands still, before somebody is ended for it.

Owns pipes full of pages: these are the kernel's, neither mapped nor swapped out. A thread fills
them, when there is memory. Always holds: to give them back waits for nobody, as only those are
emptied that the thread is through with.
"""

import errno
import fcntl
import os
import queue
import threading
import time
from typing import Final, NamedTuple

from vswapfs.host import memory

PIPE_BYTES: Final = 1 << 20
PIPES: Final = 2
"""What the kernel needs is a page or two, to hand a request to FUSE; but it gets none while less is
free than the lowest mark, which is 1.3 MiB in a guest of 192 MiB, and 2.6 in one of 512."""

_STACK_BYTES: Final = 128 << 10
"""Of the thread. All memory of the process is locked, and the default is 8 MiB."""
_ZEROS: Final = bytes(64 << 10)
_WAIT_S: Final = 0.1


class _Pipe(NamedTuple):
    read_fd: int
    write_fd: int


class Relief:
    """Raises OSError if there cannot be such pipes, or no thread."""

    def __init__(self) -> None:
        self._memory = memory.Watch()
        self._null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self._empty: queue.SimpleQueue[_Pipe] = queue.SimpleQueue()
        self._full: list[_Pipe] = []
        self._given: list[_Pipe] = []
        for _ in range(PIPES):
            pipe = _Pipe(*os.pipe2(os.O_CLOEXEC))
            fcntl.fcntl(pipe.write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            self._empty.put(pipe)
        before_bytes = threading.stack_size(_STACK_BYTES)
        try:
            threading.Thread(target=self._fill, name="relief", daemon=True).start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from None
        finally:
            threading.stack_size(before_bytes)

    def give_back(self) -> int:
        """All there is; how many bytes."""
        given_bytes = 0
        while self._full:
            pipe = self._full.pop()
            given_bytes += os.splice(pipe.read_fd, self._null, PIPE_BYTES)
            self._given.append(pipe)
        return given_bytes

    def take_again(self) -> None:
        """As soon as there is memory."""
        while self._given:
            self._empty.put(self._given.pop())

    def _fill(self) -> None:
        # Taken from a machine that is short of it, it would be what the next one waits for.
        while True:
            pipe = self._empty.get()
            for _ in range(PIPE_BYTES // len(_ZEROS)):
                while not self._memory.is_free(2 * len(_ZEROS)):
                    time.sleep(_WAIT_S)
                os.write(pipe.write_fd, _ZEROS)
            self._full.append(pipe)
