"""Taking a name: what stands in the way is told at once."""

import errno
import os
from pathlib import Path

import pytest

from vswapfs.daemon import lock, remains
from vswapfs.errors import HostError
from vswapfs.format import instance


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(instance, "RUN_DIRECTORY", str(tmp_path))
    return tmp_path


def test_a_lock_that_leads_nowhere_is_not_tried_for_ever(run_directory: Path) -> None:
    (run_directory / "one").mkdir()
    (run_directory / "one" / "lock").symlink_to("/nowhere/at/all")
    with pytest.raises(HostError, match="No such file") as caught:
        lock.acquire("one")
    assert "ls -la" in caught.value.remedy


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_the_remedy_is_for_the_error(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(HostError) as caught:
        lock.acquire("one")
    assert ("df" in caught.value.remedy) == (number == errno.ENOSPC)


def test_a_file_in_place_of_the_directory_holds_nothing(run_directory: Path) -> None:
    (run_directory / "one").touch()
    assert lock.holder("one") is None
    assert not remains.find("one").is_there


def test_nobody_else_looks_into_the_directory(run_directory: Path) -> None:
    os.close(lock.acquire("a"))
    assert run_directory.stat().st_mode & 0o777 == 0o700
