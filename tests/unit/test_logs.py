"""The log's target may stand still: nobody waits for it, and its end is none of the process."""

import logging
import logging.handlers
import threading
from pathlib import Path

import pytest

from vswapfs.daemon import logs


def test_a_target_that_stands_still_does_not_fail_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands, goes_on = threading.Event(), threading.Event()

    def emit(_handler: logging.Handler, _record: logging.LogRecord) -> None:
        stands.set()
        goes_on.wait()

    monkeypatch.setattr(logging.handlers.RotatingFileHandler, "emit", emit)
    monkeypatch.setattr(logs, "QUEUE_MAX_RECORDS", 2)
    log = logging.getLogger("vswapfs.test")
    try:
        with logs.logging_to(str(tmp_path / "log"), "info"):
            log.info("this one is written, and never done")
            assert stands.wait(10)
            for number in range(5):
                log.info("%d", number)
    finally:
        goes_on.set()
