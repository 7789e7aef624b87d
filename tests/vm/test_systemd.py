"""The unit vswapfs@NAME in a guest whose first process is systemd: up, down, and failures.

In whatever way a start or the supervisor ends, no swap, loop device, mount or process is left.
"""

import re
from pathlib import Path

import pytest
from guest import Guest
from machine import missing, virtual_machine, wait_until

MIB = 1 << 20
UNIT = "vswapfs@tunit"
CONFIG = "/etc/vswapfs/tunit.toml"
LIMIT_S = 300

# What an instance leaves behind: each line of the output would be something.
LEFT = (
    "swapon --noheadings --show; losetup --list --noheadings; ls -A /run/vswapfs; "
    "grep fuse.vswapfs /proc/self/mountinfo; pgrep -fa [v]swapfs.daemon; true"
)


def install(guest: Guest) -> None:
    """The unit, the command where systemd looks for it, and a configuration."""
    guest.run(
        "mkdir -p /usr/local/bin /usr/local/sbin /etc/systemd/system /etc/vswapfs /run/vswapfs && "
        "ln -s $PWD/.venv/bin/vswapctl /usr/local/bin/ && "
        "cp vswapfs/ctl/systemd/vswapfs@.service /etc/systemd/system/ && "
        # Emulated, a start may take longer than the unit's minute.
        "mkdir /etc/systemd/system/vswapfs@.service.d && "
        f"printf '[Service]\\nTimeoutStartSec={LIMIT_S}\\n' "
        ">/etc/systemd/system/vswapfs@.service.d/emulated.conf && systemctl daemon-reload"
    )
    configure(guest, guest.disk(0))


def configure(guest: Guest, tier: str) -> None:
    guest.run(
        f'printf \'size = "256M"\\npool-limit = "32M"\\ntier = ["{tier}:256M"]\\n\' >{CONFIG}'
    )


def systemctl(guest: Guest, *words: str, check: bool = True) -> str:
    return guest.run(["systemctl", *words], timeout_s=LIMIT_S, check=check).stdout


def output(guest: Guest, command: str) -> str:
    return guest.run(command, timeout_s=LIMIT_S).stdout


def shown(guest: Guest, name: str) -> str:
    return systemctl(guest, "show", UNIT, "--value", "-p", name).strip()


def areas(guest: Guest) -> list[str]:
    return output(guest, "swapon --noheadings --show=NAME").split()


def assert_nothing_left(guest: Guest) -> None:
    wait_until("nothing is left", lambda: not output(guest, LEFT), LIMIT_S)


def up_and_down(guest: Guest) -> None:
    systemctl(guest, "start", UNIT)
    # When start returns swap is on, and the supervisor is the main process.
    assert len(areas(guest)) == 1
    assert shown(guest, "ActiveState") == "active"
    assert shown(guest, "StatusText") == "tunit is up"
    assert shown(guest, "MainPID") == output(guest, "cat /run/vswapfs/tunit/lock").strip()
    systemctl(guest, "restart", UNIT)
    assert len(areas(guest)) == 1
    systemctl(guest, "stop", UNIT)
    assert shown(guest, "Result") == "success"
    assert_nothing_left(guest)


def a_step_that_fails(guest: Guest) -> None:
    configure(guest, "/nowhere/tier")
    assert guest.run(["systemctl", "start", UNIT], timeout_s=LIMIT_S, check=False).exit_code
    assert shown(guest, "ActiveState") == "failed"
    assert "open tier /nowhere/tier" in output(guest, f"journalctl --no-pager -u {UNIT}")
    assert_nothing_left(guest)
    configure(guest, guest.disk(0))


def a_start_that_is_broken_off(guest: Guest) -> None:
    """In the middle: mounted and attached, but not yet swapped to."""
    slow = "/usr/local/sbin/mkswap"
    script = r"#!/bin/sh\ntouch /run/mkswap-began\nsleep 25\n"
    guest.run(f"printf '{script}' >{slow}; chmod +x {slow}")
    systemctl(guest, "start", "--no-block", UNIT)
    wait_until("mkswap", lambda: "began" in output(guest, "ls /run"), LIMIT_S)
    assert output(guest, "losetup --list --noheadings")
    systemctl(guest, "stop", UNIT)
    assert_nothing_left(guest)
    guest.run(f"rm {slow}")


def a_supervisor_that_is_killed(guest: Guest) -> None:
    systemctl(guest, "start", UNIT)
    guest.run("kill -9 $(cat /run/vswapfs/tunit/lock)")
    wait_until("the unit ends", lambda: shown(guest, "ActiveState") == "failed", LIMIT_S)
    assert_nothing_left(guest)


def the_end_of_the_machine(guest: Guest) -> None:
    systemctl(guest, "reset-failed", UNIT)
    systemctl(guest, "enable", UNIT)
    systemctl(guest, "start", "swap.target")
    assert len(areas(guest)) == 1
    guest.start(["systemctl", "poweroff"])
    guest.wait_off(LIMIT_S)
    console = guest.console.read_text(errors="replace")
    # Taken down as a unit: nothing was left for systemd to switch off at the very end.
    # The name is in colours.
    assert re.search(rf"Stopped .*{UNIT}(.|\n)*systemd-shutdown\[1\]: ", console)
    assert "Failed deactivating swap" not in console


@pytest.mark.long
def test_the_unit(tmp_path: Path) -> None:
    if not Path("/lib/systemd/systemd").exists():
        missing("no systemd on this machine, whose files a guest has")
    with virtual_machine(
        "6.1", memory_mib=768, disks=[256 * MIB], directory=tmp_path, systemd=True,
        append="systemd.show_status=yes",
    ) as guest:  # fmt: skip
        install(guest)
        up_and_down(guest)
        a_step_that_fails(guest)
        a_start_that_is_broken_off(guest)
        a_supervisor_that_is_killed(guest)
        the_end_of_the_machine(guest)
