"""A long command that is done whether or not who asked still listens: its steps are told meanwhile.

Owns the way of a step from whatever thread takes it to the client. Never cancels what is done.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable

import trio

from vswapfs.daemon.control import Send
from vswapfs.errors import HostError
from vswapfs.format import message

_log = logging.getLogger(__name__)


async def do_with_steps(do: Callable[[Callable[[str], None]], Awaitable[None]], send: Send) -> None:
    """Have ``do(report)`` done, send and log what it reports, and Done at its end.

    Raises the HostError that it raises.
    """
    token = trio.lowlevel.current_trio_token()
    steps_in, steps = trio.open_memory_channel[str](100)

    def report(text: str) -> None:
        _log.info("%s", text)
        token.run_sync_soon(pass_in, text)

    def pass_in(text: str) -> None:
        with contextlib.suppress(trio.ClosedResourceError, trio.WouldBlock):
            steps_in.send_nowait(text)

    async def pass_on() -> None:
        async for text in steps:
            # Who asked may be gone; what he asked for is done all the same.
            with contextlib.suppress(OSError, trio.BrokenResourceError, trio.TooSlowError):
                await send(message.Step(text))

    failure: HostError | None = None
    # Shielded: the end of the lane ends the daemon's tasks, but not before this answer.
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_on)
            with steps_in:
                try:
                    await do(report)
                except HostError as error:
                    failure = error
        if failure:
            raise failure
        await send(message.Done())
