"""An instance whose mount somebody has taken away (umount --lazy) under its area."""

import os
import signal
from collections.abc import Iterator

import pytest
from machine import Instance, assert_nothing_left, ctl, ctl_ok, loop_devices, require_swap, run

from vswapfs.host import swap

NAME = "taway"


@pytest.fixture
def up() -> Iterator[Instance]:
    require_swap()
    try:
        ctl_ok("on", NAME, "--size", "64M", "--pool-limit", "32M")
        instance = Instance(NAME)
        assert run("umount", "--lazy", instance.mountpoint).returncode == 0
        assert instance.device in swap.active_areas()
        yield instance
        assert_nothing_left(NAME)
        assert instance.device not in swap.active_areas()
        assert instance.device not in [device for device, _file in loop_devices()]
    finally:
        ctl("off", NAME, "--force")


def test_status_still_shows_the_device(up: Instance) -> None:
    assert up.status()["loop_device"] == up.device
    ctl_ok("off", NAME)


def test_off_takes_it_down(up: Instance) -> None:
    assert f"swapoff {up.device}" in ctl("off", NAME).stderr


def test_so_does_force(up: Instance) -> None:
    os.kill(up.supervisor_pid, signal.SIGSTOP)
    os.kill(up.pid, signal.SIGSTOP)
    ctl_ok("off", NAME, "--force")


def test_and_what_a_killed_daemon_leaves_is_cleared_up(up: Instance) -> None:
    os.kill(up.supervisor_pid, signal.SIGKILL)
    os.kill(up.pid, signal.SIGKILL)
    ctl_ok("off", NAME, "--force")
