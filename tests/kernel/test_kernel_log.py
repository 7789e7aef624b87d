"""What other tests and the stress commands say of the kernel's log: they must see what is new."""

import os
from pathlib import Path

import kernel_log
import pytest
from machine import kernel_log_mark, missing

KMSG = Path("/dev/kmsg")


def test_lines_after_the_mark_are_seen_and_those_before_are_not() -> None:
    if not os.access(KMSG, os.W_OK):
        missing("the kernel's log cannot be written")
    KMSG.write_text("vswapfs test: before\n")
    mark = kernel_log_mark()
    KMSG.write_text("vswapfs test: one; two\n")
    KMSG.write_text("vswapfs test: three\n")
    ours = [line for line in kernel_log.since(mark) if "vswapfs test" in line]
    assert ours == ["vswapfs test: one; two", "vswapfs test: three"]


def test_a_buffer_that_has_come_round_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as before, and all of it new: /dev/kmsg as it reads then, records overwritten."""
    records: list[bytes | type[OSError]] = [
        BrokenPipeError, b"6,41,9,-;old\n", b"3,42,9,-;I/O error\n DEVICE=b7:0\n", BlockingIOError,
    ]  # fmt: skip
    reads = iter(records)

    def read(_fd: int, _size: int) -> bytes:
        record = next(reads)
        if isinstance(record, bytes):
            return record
        raise record

    monkeypatch.setattr(os, "read", read)
    assert kernel_log.since(42) == ["I/O error"]
