"""vm.watermark_boost_factor, a setting of the whole machine that instances share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import ctl, ctl_ok, swap_instance

from vswapfs.format import instance
from vswapfs.host.boost import SETTING

BEFORE = 12345


def now() -> int:
    return int(Path(SETTING).read_text())


@pytest.fixture(autouse=True)
def set_before() -> Iterator[None]:
    if (note := Path(instance.RUN_DIRECTORY, ".watermark_boost_factor")).exists():
        pytest.fail(f"somebody is up, or died: {note.read_text()}")
    found = Path(SETTING).read_text()
    try:
        Path(SETTING).write_text(str(BEFORE))
        yield
        assert now() == BEFORE
        assert not note.exists()
    finally:
        Path(SETTING).write_text(found)


def test_the_last_instance_puts_it_back() -> None:
    with swap_instance("tboost1", "--size", "64M", "--pool-limit", "32M"):
        assert now() == 0
        with swap_instance("tboost2", "--size", "64M", "--pool-limit", "32M"):
            ctl_ok("off", "tboost1")
            assert now() == 0
        assert now() == BEFORE
        ctl_ok("on", "tboost1", "--size", "64M", "--pool-limit", "32M")
        assert now() == 0


def test_so_does_off_for_one_that_was_killed() -> None:
    with swap_instance("tboost1", "--size", "64M", "--pool-limit", "32M") as up:
        up.kill()
        ctl("off", up.name, "--force")
        assert now() == BEFORE
        ctl_ok("on", "tboost1", "--size", "64M", "--pool-limit", "32M")
