"""The programs that the benchmarks run: they work, with nothing swapped, at a small size."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import swapping, usemem
from benchmarks.csource import c_file

from vswapfs.units import PAGE_BYTES


def test_c_file_is_the_same_for_a_seed_and_compiles(tmp_path: Path) -> None:
    text = c_file(1, 20)
    assert text == c_file(1, 20)
    assert text != c_file(2, 20)
    source = tmp_path / "1.c"
    source.write_text(text)
    subprocess.run(["gcc", "-fsyntax-only", "-Werror", source], check=True, timeout=60)


def test_usemem_says_how_long_each_step_took(tmp_path: Path) -> None:
    command = [sys.executable, swapping.USEMEM, str(tmp_path / "procs")]
    figures = [str(64 * PAGE_BYTES), "4", "100"]
    done = subprocess.run(
        [*command, *figures], check=True, capture_output=True, text=True, timeout=60
    )
    took_s = json.loads(done.stdout)
    assert tuple(took_s) == usemem.STEPS
    assert all(seconds > 0 for seconds in took_s.values())


def test_usemem_ends_when_one_of_its_processes_does(tmp_path: Path) -> None:
    procs = tmp_path / "missing" / "procs"  # it cannot be written
    command = [sys.executable, swapping.USEMEM, str(procs), str(64 * PAGE_BYTES), "4", "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "exit codes {1}" in done.stderr
