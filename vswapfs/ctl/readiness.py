"""Telling the service manager that the instance is up, and which process is its main one.

Owns the protocol of sd_notify(3), as far as it is needed. Does nothing when nobody asked.
"""

import contextlib
import os
import select
import socket
from pathlib import Path
from typing import Final

from vswapfs.format import instance

_BARRIER_TIMEOUT_MS: Final = 5000


def tell(name: str) -> None:
    """Name the supervisor as the main process, and wait until that is understood.

    Without the wait the manager may look for us when we have ended, and not know whose word it is.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    supervisor = Path(instance.lock_path(name)).read_text().strip()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, contextlib.suppress(OSError):
        manager.connect("\0" + address[1:] if address.startswith("@") else address)
        manager.send(f"MAINPID={supervisor}\nREADY=1\nSTATUS={name} is up".encode())
        ours, theirs = os.pipe()
        try:
            socket.send_fds(manager, [b"BARRIER=1"], [theirs])
        finally:
            os.close(theirs)
        poll = select.poll()
        poll.register(ours, 0)  # it is closed at the other end when all was read
        poll.poll(_BARRIER_TIMEOUT_MS)
        os.close(ours)
