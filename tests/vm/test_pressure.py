"""A guest that needs twice its memory, and swaps all of it to vswapfs: nothing hangs, no byte is
wrong, and only those are killed that took the memory."""

from pathlib import Path

import pytest
from guest.pressed import Load, press
from machine import ROOT, virtual_machine
from pressure import PROTECTIONS

MIB = 1 << 20


@pytest.mark.long
def test_a_machine_that_is_short_of_memory(tmp_path: Path) -> None:
    disks = [2048 * MIB]
    with virtual_machine("6.12", memory_mib=256, disks=disks, directory=tmp_path) as guest:
        verdict = press(guest, Load(seconds=55), print)
        assert verdict.faults == []
        assert verdict.result["pages_out"] > 1000
        assert verdict.result["verified_pages"] > 0


@pytest.mark.parametrize("name", PROTECTIONS)
def test_what_switches_a_protection_off_fits_the_source(name: str) -> None:
    """The experiment would stop in a guest, after minutes."""
    for change in PROTECTIONS[name]:
        assert (ROOT / change.path).read_text().count(change.was) == 1
