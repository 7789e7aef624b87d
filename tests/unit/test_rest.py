"""Which cgroups are put to rest; they are woken also when the process that did it dies."""

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from machine import wait_until

from vswapfs import procfs
from vswapfs.hibernate import rest


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cgroup.controllers").touch()
    for name in ("system/a", "system/b", "user/mine", "user/other", "frozen"):
        (tmp_path / name).mkdir(parents=True)
    for directory in (path for path in tmp_path.rglob("*") if path.is_dir()):
        (directory / "cgroup.freeze").write_text("1" if directory.name == "frozen" else "0")
        (directory / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    monkeypatch.setattr(rest, "CGROUPS", tmp_path)
    monkeypatch.setattr(procfs, "lines", lambda _path: ["0::/user/mine"])
    return tmp_path


def frozen(tree: Path) -> list[str]:
    return sorted(
        str(path.parent.relative_to(tree))
        for path in tree.rglob("cgroup.freeze")
        if path.read_text().strip() == "1"
    )


def test_all_but_those_with_spared_processes(tree: Path) -> None:
    with rest.at_rest(set()) as cgroups:
        assert [str(path.relative_to(tree)) for path in cgroups] == ["system", "user/other"]
        assert frozen(tree) == ["frozen", "system", "user/other"]
    assert frozen(tree) == ["frozen"]


def test_woken_after_an_error(tree: Path) -> None:
    with pytest.raises(RuntimeError), rest.at_rest(set()):
        raise RuntimeError
    assert frozen(tree) == ["frozen"]


def test_woken_when_the_process_is_killed(tree: Path) -> None:
    pid = os.fork()
    if pid == 0:
        with rest.at_rest(set()):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_until("they are woken", lambda: frozen(tree) == ["frozen"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_woken_when_all_of_the_group_get_a_signal(tree: Path, number: signal.Signals) -> None:
    """Ctrl-C, or a terminal that is closed."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with suppress(KeyboardInterrupt), rest.at_rest(set()):
            (tree / "rests").touch()
            time.sleep(60)
        os._exit(0)
    wait_until("all rest", (tree / "rests").exists)
    os.killpg(pid, number)
    os.waitpid(pid, 0)
    wait_until("they are woken", lambda: frozen(tree) == ["frozen"])


def test_a_cgroup_that_goes_meanwhile_is_no_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rest._to_freeze

    def freeze_then_lose(spared: set[int]) -> list[Path]:
        found = real(spared)
        shutil.rmtree(tree / "user/other")
        return found

    monkeypatch.setattr(rest, "_to_freeze", freeze_then_lose)
    with rest.at_rest(set()):
        assert frozen(tree) == ["frozen", "system"]


def test_no_cgroup_v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "CGROUPS", tmp_path)
    with rest.at_rest(set()) as cgroups:
        assert cgroups == []
