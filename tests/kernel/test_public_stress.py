"""Public stress programs on our device: the commands run them, and say what is missing."""

import shutil
import sys
from pathlib import Path

import pytest
from machine import ROOT, assert_nothing_left, missing, require_swap, run


def test_a_public_program_passes_on_our_swap() -> None:
    require_swap()
    if not shutil.which("stress-ng"):
        missing("stress-ng is not installed: tools/test could not install it")
    done = run(sys.executable, ROOT / "tools/stress.py", "public", "vm", "--seconds", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert_nothing_left("public")


FAKE = """#!/bin/sh
set -e
echo "on ${LTP_DEV:-$TEST_DEVS} $*"
echo known | dd of="${LTP_DEV:-$TEST_DEVS}" bs=4096 conv=sync oflag=direct status=none
exit 0
"""


@pytest.mark.parametrize(
    ("script", "program", "arguments"),
    [("ltp", "testcases/bin/swapon01", ("swapon01",)), ("blktests", "check", ())],
)
def test_a_suite_that_a_person_has_gets_our_device(
    tmp_path: Path, script: str, program: str, arguments: tuple[str, ...]
) -> None:
    require_swap()
    done = run(ROOT / "tools" / script, tmp_path, *arguments)
    assert done.returncode == 2
    assert f"no {tmp_path}/{program}" in done.stderr
    path = tmp_path / program
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FAKE)
    path.chmod(0o755)
    done = run(ROOT / "tools" / script, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "on /dev/loop" in done.stdout
    assert_nothing_left(script)
