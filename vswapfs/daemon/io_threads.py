"""A few threads that do blocking I/O for the lane, and hand the outcome back to it.

Owns the threads. They never touch the store: a job gets buffers and offsets, and what becomes of
its result is decided on the lane.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, Final

TIER_IO_THREADS: Final = 3

Job = Callable[[], Any]
Done = Callable[[Any, BaseException | None], None]
Submit = Callable[[Callable[[], Any], Done], None]


class IoThreads:
    """Jobs in, completions out through ``submit`` (Lane.submit)."""

    def __init__(self, submit: Submit, count: int, name: str) -> None:
        self._submit = submit
        self._jobs: queue.SimpleQueue[tuple[Job, Done] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def do(self, job: Job, done: Done) -> None:
        """Run the job on a thread; ``done(result, error)`` is called on the lane afterwards."""
        self._jobs.put((job, done))

    def stop(self) -> None:
        """Finish what was asked for and end the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                result, error = job(), None
            except Exception as raised:
                result, error = None, raised
            self._submit(lambda outcome=(result, error): outcome, _hand_over(done))  # type: ignore[misc]


def _hand_over(done: Done) -> Done:
    def completion(outcome: Any, ended: BaseException | None) -> None:
        if ended is None:
            done(*outcome)
        else:
            done(None, ended)  # the lane is gone

    return completion
