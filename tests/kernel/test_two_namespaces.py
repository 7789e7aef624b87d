"""Two instances of one name, in mount namespaces that have a /run each."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import (
    VSWAPCTL,
    Instance,
    assert_nothing_left,
    ctl,
    ctl_ok,
    require_swap,
    run,
    wait_until,
)

from vswapfs.host import boost, swap

NAME = "ttwice"
OPTIONS = ("--size", "32M", "--pool-limit", "16M")


@pytest.fixture
def there() -> Iterator[tuple[str, ...]]:
    """How to run a command in another namespace."""
    require_swap()
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && echo && exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"\n"
        enter = ("nsenter", f"--mount=/proc/{process.pid}/ns/mnt")
        yield enter
        run(*enter, VSWAPCTL, "off", NAME, "--force")


def test_what_an_instance_of_a_namespace_that_has_gone_left_is_cleared_up() -> None:
    """It was switched on in a /dev of that namespace, which /proc/swaps cannot name any more."""
    before = set(swap.active_areas())
    try:
        assert run("unshare", "--mount", VSWAPCTL, "on", NAME, *OPTIONS).returncode == 0
        up = Instance(NAME)
        up.kill()
        wait_until("it is dead", lambda: "dead" in ctl("status", NAME).stdout)
        assert set(swap.active_areas()) - before == {up.device}
        ctl_ok("off", NAME, "--force")
        assert set(swap.active_areas()) == before
    finally:
        ctl("off", NAME, "--force")
    assert_nothing_left(NAME)


def test_each_takes_down_its_own(there: tuple[str, ...]) -> None:
    before, boost_before = set(swap.active_areas()), Path(boost.SETTING).read_text()
    assert run(*there, VSWAPCTL, "on", NAME, *OPTIONS).returncode == 0
    (theirs,) = set(swap.active_areas()) - before
    try:
        ctl_ok("on", NAME, *OPTIONS)
        mine = Instance(NAME).device
        assert mine != theirs
        ctl_ok("off", NAME)
        assert set(swap.active_areas()) - before == {theirs}
        ctl_ok("on", NAME, *OPTIONS)
        assert run(*there, VSWAPCTL, "off", NAME).returncode == 0
        assert set(swap.active_areas()) - before == {Instance(NAME).device}
        ctl_ok("off", NAME)
    finally:
        ctl("off", NAME, "--force")
    assert_nothing_left(NAME)
    assert Path(boost.SETTING).read_text() == boost_before
