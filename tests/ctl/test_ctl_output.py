"""Where the output cannot be written a command says so, or goes on, and never with a traceback."""

import subprocess

import pytest
from machine import VSWAPCTL


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command, "sh", VSWAPCTL],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("words", ["--help", "off --help", "--version"])
def test_a_full_disk_is_an_error_of_the_output(words: str) -> None:
    done = shell(f'"$1" {words} >/dev/full')
    assert done.returncode == 3
    assert done.stderr == "vswapctl: write the output: No space left on device\n"


def test_a_table_for_a_full_disk() -> None:
    done = shell('"$1" status >/dev/full')
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 3)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("words", ["status", "--version", "map nobody"])
def test_nobody_to_tell(words: str, closed: str) -> None:
    here, away = shell(f'"$1" {words}'), shell(f'"$1" {words} {closed}')
    assert away.returncode == here.returncode
    assert "Traceback" not in away.stderr
