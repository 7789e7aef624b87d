"""A guest that needs twice its memory, and swaps all of it to vswapfs: nothing hangs, no byte is
wrong, and only those are killed that took the memory."""

from pathlib import Path

import pytest
from guest.pressed import Load, press
from machine import ROOT, virtual_machine
from pressure import PROTECTIONS

MIB = 1 << 20
STANDS_STILL_MS = 20_000
"""As the rescue sees it (host/rescue.py), which must not be needed."""


def press_one(kernel: str, memory_mib: int, seconds: int, directory: Path) -> None:
    disks = [2048 * MIB]
    with virtual_machine(kernel, memory_mib=memory_mib, disks=disks, directory=directory) as guest:
        verdict = press(guest, Load(seconds=seconds), print)
        assert verdict.faults == []
        assert verdict.result["pages_out"] > 1000
        assert verdict.result["between_beats_ms"]["most"] < STANDS_STILL_MS


@pytest.mark.long
def test_a_machine_that_is_short_of_memory(tmp_path: Path) -> None:
    press_one("6.12", 192, 30, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("memory_mib", [192, 256, 512])
@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_ten_minutes(kernel: str, memory_mib: int, tmp_path: Path) -> None:
    press_one(kernel, memory_mib, 600, tmp_path)


@pytest.mark.parametrize("name", PROTECTIONS)
def test_what_switches_a_protection_off_fits_the_source(name: str) -> None:
    """The experiment would stop in a guest, after minutes."""
    for change in PROTECTIONS[name]:
        assert (ROOT / change.path).read_text().count(change.was) == 1
