"""The fuzz targets of tools/fuzzing without a fuzzer: their corpus, and some bytes of hypothesis.

`tools/fuzz` looks for new inputs; this keeps what it found to be worth running true.
"""

import logging
import signal
from collections.abc import Iterator

import pytest
from fuzzing import keep, limits, targets
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Refusals are logged, thousands of them."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", targets.NAMES)
def test_the_corpus(name: str) -> None:
    run = targets.runner(name)
    paths = targets.corpus(name)
    assert 0 < len(paths) <= keep.FILES_MAX
    for path in paths:
        data = path.read_bytes()
        assert len(data) <= keep.FILE_MAX_BYTES
        with limits.time():
            run(data)


@pytest.mark.parametrize("name", targets.NAMES)
def test_any_bytes(name: str) -> None:
    run = targets.runner(name)

    @settings(
        max_examples=40, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @example(b"")
    @given(st.binary(max_size=300))
    def bounded(data: bytes) -> None:
        with limits.time():
            run(data)

    bounded()


def test_there_is_no_corpus_without_a_target() -> None:
    assert {path.name for path in targets.CORPUS.iterdir()} == set(targets.NAMES)


def test_more_memory_than_allowed_is_a_finding() -> None:
    with pytest.raises(MemoryError), limits.memory():
        bytearray(2 * limits.MEMORY_BYTES)  # as garbage of before may be given back meanwhile


def test_a_run_that_does_not_end_is_a_finding() -> None:
    with pytest.raises(limits.HangError), limits.time(0.05):
        signal.pause()
