"""A run directory of its own for each test, and a way to run vswapctl in it."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vswapfs.ctl.cli import cli
from vswapfs.format import instance

Vswapctl = Callable[..., Result]


@pytest.fixture(autouse=True)
def run_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Not tmp_path: the path of a socket has 107 bytes at most.
    path = Path(tempfile.mkdtemp(prefix="vctl"))
    monkeypatch.setattr(instance, "RUN_DIRECTORY", str(path / "run"))
    yield path / "run"
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)


@pytest.fixture
def vswapctl() -> Vswapctl:
    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(cli, arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
