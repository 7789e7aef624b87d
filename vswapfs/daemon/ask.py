"""Asking the lane from trio: hand it work, wait for the result without blocking the event loop."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from vswapfs.fuse.lane import Lane

_R = TypeVar("_R")


async def ask(lane: Lane, work: Callable[[], _R]) -> _R:
    """Run ``work`` on the lane and return its result or raise its exception. Keep it short."""
    token = trio.lowlevel.current_trio_token()
    done = trio.Event()
    answer: list[tuple[Any, BaseException | None]] = []

    def completion(result: Any, error: BaseException | None) -> None:
        answer.append((result, error))
        with contextlib.suppress(trio.RunFinishedError):  # the daemon ended; nobody waits
            token.run_sync_soon(done.set)

    lane.submit(work, completion)
    await done.wait()
    result, error = answer[0]
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]
