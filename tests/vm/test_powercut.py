"""tools/powercut on a guest: what a kill leaves is told rightly and taken again."""

import re
import sys

import pytest
from machine import ROOT, require_guest, require_swap, run


@pytest.mark.long
def test_a_guest_is_killed_and_boots_again() -> None:
    require_guest("6.12")
    require_swap()
    tool = (sys.executable, ROOT / "tools/powercut.py", "--kernel", "6.12")
    done = run(*tool, "--kills", "3", "--cuts", "8", "--within", "20", timeout_s=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"(?m)^killed +3:", done.stdout)
    assert re.search(r"(?m)^out of logs +24:", done.stdout)
    assert done.stdout.endswith("went wrong   0\n")
