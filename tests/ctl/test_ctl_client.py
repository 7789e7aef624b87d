"""The connection and the choice of an instance: what goes wrong, and what is said then."""

import json
import threading
import time
from pathlib import Path

import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import FakeDaemon

from vswapfs.ctl import client, instances
from vswapfs.errors import (
    HostError,
    InstanceError,
    PermissionRefusedError,
    UsageError,
    VswapError,
)
from vswapfs.format import instance
from vswapfs.format.message import (
    LINE_MAX_BYTES,
    AskCheck,
    AskStats,
    AskStatus,
    Done,
    Failure,
    Stats,
    Status,
    encode,
)


@pytest.fixture
def hang() -> threading.Event:
    """For a daemon that waits: to be set at the end."""
    return threading.Event()


def ask_stats(name: str = "vswap0", timeout_s: float = 10.0) -> Stats:
    return client.ask(name, AskStats(), Stats, timeout_s)


def test_answer_in_pieces_that_come_slowly() -> None:
    line = encode(Stats({"pages.zero": 1}))
    with FakeDaemon("vswap0", {AskStats: [line[:5], lambda: time.sleep(0.05), line[5:]]}):
        assert ask_stats().values == {"pages.zero": 1}


def test_silent_daemon(hang: threading.Event) -> None:
    with FakeDaemon("vswap0", {AskStats: [hang.wait]}):
        with pytest.raises(client.NotAnsweringError, match=r"nothing came for 0\.1 s") as caught:
            ask_stats(timeout_s=0.1)
        hang.set()
    assert "kill its worker" in caught.value.remedy
    assert caught.value.remedy.endswith("vswapctl off vswap0 --force")
    assert caught.value.exit_code == InstanceError.exit_code


def test_silence_with_progress_is_waited_for(hang: threading.Event) -> None:
    progress = iter([True, True, False])
    with FakeDaemon("vswap0", {AskStats: [hang.wait]}):
        with pytest.raises(client.NotAnsweringError):
            list(client.answers("vswap0", AskStats(), 0.05, lambda: next(progress)))
        hang.set()
    assert list(progress) == []


def test_daemon_that_hangs_up() -> None:
    with (
        FakeDaemon("vswap0", {AskStats: [b'{"type":"st']}),
        pytest.raises(client.NotAnsweringError, match="hung up") as caught,
    ):
        ask_stats()
    assert instance.log_path("vswap0") in caught.value.remedy


@pytest.mark.parametrize(
    "answer",
    [b'{"type":"later"}\n', b"no json\n", b"x" * (LINE_MAX_BYTES + (1 << 17)), encode(Done())],
)
def test_other_version(answer: bytes) -> None:
    with (
        FakeDaemon("vswap0", {AskStats: [answer]}),
        pytest.raises(InstanceError, match="does not understand") as caught,
    ):
        ask_stats()
    assert not isinstance(caught.value, client.NotAnsweringError)


@pytest.mark.parametrize(
    ("exit_code", "kind"),
    [
        (1, VswapError),
        (2, UsageError),
        (3, HostError),
        (4, InstanceError),
        (5, PermissionRefusedError),
        (9, VswapError),
    ],
)
def test_failure_is_raised_as_it_was(exit_code: int, kind: type[VswapError]) -> None:
    with (
        FakeDaemon(
            "vswap0", {AskStats: [Failure("swapoff: no memory", "end something", exit_code)]}
        ),
        pytest.raises(kind) as caught,
    ):
        ask_stats()
    assert type(caught.value) is kind
    assert caught.value.message == "swapoff: no memory"
    assert caught.value.remedy == "end something"
    assert caught.value.exit_code == exit_code


def test_no_such_instance_lists_those_that_run(vswapctl: Vswapctl) -> None:
    with FakeDaemon("a"), FakeDaemon("b"):
        Path(instance.directory("dead")).mkdir()
        for command in ("stats", "check", "off", "status"):
            result = vswapctl(command, "c")
            assert result.exit_code == 4
            assert result.stderr.startswith("vswapctl: no such instance: c; running: a, b\n")


def test_no_such_instance_and_none_runs(vswapctl: Vswapctl) -> None:
    result = vswapctl("stats", "c")
    assert result.stderr == (
        "vswapctl: no such instance: c; none is up\n  try: vswapctl on c --size 2G\n"
    )


@pytest.mark.parametrize("with_socket", [True, False])
def test_dead_instance(run_directory: Path, with_socket: bool) -> None:
    with FakeDaemon("vswap0"):
        pass  # leaves its files
    if not with_socket:
        Path(instance.control_path("vswap0")).unlink()
    with pytest.raises(InstanceError, match="vswap0 is dead") as caught:
        ask_stats()
    assert caught.value.remedy == "vswapctl off vswap0"


def test_instance_that_starts(run_directory: Path) -> None:
    with FakeDaemon("vswap0"):
        Path(instance.control_path("vswap0")).unlink()
        with pytest.raises(client.NotAnsweringError, match="about to start or to end"):
            ask_stats()


def test_silent_instance_does_not_hide_the_others(vswapctl: Vswapctl) -> None:
    with FakeDaemon("a", {AskStatus: [b""]}), FakeDaemon("b"):
        result = vswapctl("status", "-no", "NAME,PID")
        as_json = vswapctl("status", "--json")
    assert result.stdout == "a  -\nb 42\n"
    assert "warning: a hung up" in result.stderr
    assert result.exit_code == as_json.exit_code == 4
    assert "hung up" in json.loads(as_json.stdout)[0]["error"]


# -- instances --------------------------------------------------------------------------------


def test_looking_creates_nothing(run_directory: Path) -> None:
    assert instances.names() == []
    assert instances.find("vswap0") is None
    assert not run_directory.exists()
    Path(instance.directory("vswap0")).mkdir(parents=True)
    assert instances.find("vswap0") is instances.State.DEAD
    assert not list(Path(instance.directory("vswap0")).iterdir())


def test_other_things_in_the_run_directory_are_no_instances(run_directory: Path) -> None:
    (run_directory / ".hidden").mkdir(parents=True)
    (run_directory / "file").touch()
    (run_directory / "good").mkdir()
    assert instances.names() == ["good"]


@pytest.mark.parametrize(
    ("present", "name", "chosen"),
    [
        (["a"], None, "a"),
        (["a", "vswap0"], None, "vswap0"),
        (["a", "b"], "b", "b"),
        ([], "b", "b"),
    ],
)
def test_choice(present: list[str], name: str | None, chosen: str) -> None:
    for each in present:
        Path(instance.directory(each)).mkdir(parents=True)
    assert instances.choose(name) == chosen


def test_choice_that_is_not_clear(run_directory: Path) -> None:
    with pytest.raises(InstanceError, match="no instance is up"):
        instances.choose(None)
    (run_directory / "a").mkdir(parents=True)
    (run_directory / "b").mkdir()
    with pytest.raises(InstanceError, match="There are a, b"):
        instances.choose(None)


def test_requests_are_what_was_asked() -> None:
    with FakeDaemon("vswap0") as daemon:
        client.ask("vswap0", AskStatus(), Status)
        list(client.answers("vswap0", AskCheck()))
    assert daemon.requests == [AskStatus(), AskCheck()]
