"""on, off and mount: the daemon as a process, played by a script."""

import contextlib
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from ctl.conftest import Vswapctl
from ctl.fake_daemon import FakeDaemon

from vswapfs.ctl import instances, launch, shutdown
from vswapfs.ctl.mount import vswapfs
from vswapfs.errors import HostError, InstanceError
from vswapfs.format import instance
from vswapfs.format.message import (
    AskOff,
    AskStatus,
    Config,
    Done,
    Failure,
    Ready,
    Step,
    decode_config,
    encode,
)

CONFIG = Config("vswap0", "/m", 1 << 30, "same", True)
UP = Step("mount"), Ready("/m", "/dev/loop9")

Play = Callable[..., Path]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Play:
    """Make the daemon a script that says these messages and then runs this code.

    Returns the file in which it leaves its arguments, a line for each start.
    """

    def make(*messages: Step | Ready | Done | Failure, then: str = "") -> Path:
        started = tmp_path / "started"
        said = b"".join(encode(message) for message in messages)
        script = tmp_path / "daemon.py"
        script.write_text(
            "import os, pathlib, sys, time\n"
            f"with open({str(started)!r}, 'a') as f: print(*sys.argv[1:], file=f)\n"
            f"os.write(1, {said!r})\n{then}\n"
        )
        monkeypatch.setattr(launch, "_DAEMON", (sys.executable, "-I", str(script)))
        return started

    return make


def test_on_prints_the_device(vswapctl: Vswapctl, play: Play) -> None:
    started = play(*UP)
    result = vswapctl("on", "--size", "2G", "--pool-limit", "1.5G", "--priority", "7")
    assert (result.stdout, result.stderr, result.exit_code) == ("/dev/loop9\n", "", 0)
    mode, config = started.read_text().split(maxsplit=1)
    assert mode == "run"
    assert decode_config(config) == Config(
        "vswap0", instance.mountpoint("vswap0"), 2 << 30, "same", True, 3 << 29, 7, False
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing option '--size'"),
        (["--size", "2X"], "'--size': '2X' is not a size"),
        (["--size", "1G", "--priority", "32768"], "32768"),
        (["--size", "1G", "--same-filled", "all"], "'all'"),
        (["--size", "1G", "b/d"], "is not a name"),
    ],
)
def test_on_refuses(vswapctl: Vswapctl, play: Play, arguments: list[str], said: str) -> None:
    started = play(*UP)
    result = vswapctl("on", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not started.exists()


def test_failure_of_the_start(vswapctl: Vswapctl, play: Play) -> None:
    play(Step("mount"), Failure("mount: no /dev/fuse", "modprobe fuse", 3))
    result = vswapctl("on", "--size", "2G")
    assert (result.stdout, result.exit_code) == ("", 3)
    assert result.stderr == "vswapctl: mount: no /dev/fuse\n  try: modprobe fuse\n"


@pytest.mark.parametrize(
    ("then", "said"),
    [("sys.exit(7)", "ended with status 7"), ("os.abort()", "killed by signal 6")],
)
def test_daemon_that_ends_without_a_word(play: Play, then: str, said: str) -> None:
    play(Step("mount"), then=then)
    with pytest.raises(InstanceError, match=said) as caught:
        launch.start(CONFIG, lambda text: None)
    assert shlex.join(launch.command_line("run", CONFIG)) in caught.value.remedy
    Path(instance.directory("vswap0")).mkdir(parents=True)
    Path(instance.log_path("vswap0")).touch()
    with pytest.raises(InstanceError) as caught:
        launch.start(CONFIG, lambda text: None)
    assert caught.value.remedy == f"see {instance.log_path('vswap0')}"


def test_daemon_lives_on_in_a_session_of_its_own(play: Play, tmp_path: Path) -> None:
    steps: list[str] = []
    pid_file = tmp_path / "pid"
    told = f"pathlib.Path({str(pid_file)!r}).write_text(f'{{os.getpid()}} {{os.getsid(0)}}')"
    play(Step("a"), Step("b"), then=f"{told}\nos.write(1, {encode(UP[1])!r})\ntime.sleep(60)")
    assert launch.start(CONFIG, steps.append) == UP[1]
    pid, session = map(int, pid_file.read_text().split())
    assert pid == session
    assert steps == ["a", "b"]
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def test_interrupted_start_is_waited_for(play: Play, tmp_path: Path) -> None:
    undone = tmp_path / "undone"
    play(
        Step("mount"),
        then=f"""
try:
    while True:
        os.write(1, {encode(Step("next"))!r})
        time.sleep(0.01)
except BrokenPipeError:
    time.sleep(0.1)
    pathlib.Path({str(undone)!r}).touch()
""",
    )
    said: list[str] = []

    def interrupt(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch.start(CONFIG, interrupt)
    assert undone.exists()
    assert said[-1] == "interrupted: waiting until all is undone"


@pytest.mark.parametrize("ends_when_told", [True, False])
def test_interrupted_start_of_one_that_does_not_see_it(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ends_when_told: bool
) -> None:
    pid_file = tmp_path / "pid"
    told = f"pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))"
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    script = f"{told}\nos.write(1, {encode(UP[0])!r})\ntime.sleep(60)"
    play(then=script if ends_when_told else deaf + script)
    monkeypatch.setattr(launch, "_UNDO_TIMEOUT_S", 0.05)
    monkeypatch.setattr(launch, "_END_TIMEOUT_S", 5 if ends_when_told else 0.05)

    def interrupt(text: str) -> None:
        if text == UP[0].text:
            raise KeyboardInterrupt

    if ends_when_told:
        with pytest.raises(KeyboardInterrupt):
            launch.start(CONFIG, interrupt)
        return
    with pytest.raises(InstanceError, match="has not ended"):
        launch.start(CONFIG, interrupt)
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("was_up", [True, False])
def test_interrupted_on_takes_down_only_what_it_started(
    vswapctl: Vswapctl, monkeypatch: pytest.MonkeyPatch, was_up: bool
) -> None:
    down: list[str] = []

    with contextlib.ExitStack() as stack:

        def interrupt(*_: object) -> None:
            if not was_up:
                stack.enter_context(FakeDaemon("vswap0"))
            raise KeyboardInterrupt

        if was_up:
            stack.enter_context(FakeDaemon("vswap0"))
        monkeypatch.setattr(launch, "start", interrupt)
        monkeypatch.setattr(shutdown, "off", lambda name, *_, **__: down.append(name))
        assert vswapctl("on", "--size", "1G").exit_code == 128 + signal.SIGINT
    assert down == ([] if was_up else ["vswap0"])


# -- off --------------------------------------------------------------------------------------


def test_off_waits_until_the_process_is_gone(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0") as daemon:
        ended = threading.Timer(0.2, daemon.end)
        daemon.answers[AskOff] = [Step("swapoff"), ended.start, Done()]
        result = vswapctl("off")
        assert ended.finished.is_set()
        ended.join()
    assert (result.stdout, result.stderr) == ("vswap0 is down\n", "swapoff\n")


def test_off_that_fails_is_never_forced(vswapctl: Vswapctl, play: Play) -> None:
    started = play(Done())
    failure = Failure("swapoff: not enough memory", "end something", 3)
    with FakeDaemon("vswap0", {AskOff: [failure]}):
        result = vswapctl("off", "--force")
    assert result.exit_code == 3
    assert "not enough memory" in result.stderr
    assert not started.exists()


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_off_of_one_that_dies_just_then_clears_up(
    vswapctl: Vswapctl, play: Play, monkeypatch: pytest.MonkeyPatch, force: list[str]
) -> None:
    started = play(Done())
    with FakeDaemon("vswap0"):
        pass
    states = iter([instances.State.RUNNING, instances.State.RUNNING])
    find = instances.find
    monkeypatch.setattr(instances, "find", lambda name: next(states, None) or find(name))
    result = vswapctl("off", *force)
    assert result.stdout == "vswap0 is down\n"
    assert started.read_text().split() == ["takedown", "vswap0", *force]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_off_of_a_dead_instance_clears_up(vswapctl: Vswapctl, play: Play, force: list[str]) -> None:
    started = play(Step("detach"), Done())
    with FakeDaemon("vswap0"):
        pass  # leaves its files
    result = vswapctl("off", *force)
    assert result.stdout == "vswap0 is down\n"
    assert result.stderr.splitlines() == ["its daemon is dead: clearing up", "detach"]
    assert started.read_text().split() == ["takedown", "vswap0", *force]


def test_silent_daemon_is_forced_only_if_told(
    vswapctl: Vswapctl, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("_PATIENCE_S", "_FORCE_PATIENCE_S", "_LOOK_TIMEOUT_S"):
        monkeypatch.setattr(shutdown, limit, 0.1)
    started = play(Done())
    hang = threading.Event()
    silence = [lambda: hang.wait(0.5)]
    with FakeDaemon("vswap0", {AskOff: silence, AskStatus: silence}):
        plain = vswapctl("off")
        assert not started.exists()
        forced = vswapctl("off", "--force")
        hang.set()
    assert plain.exit_code == 4
    assert plain.stderr.endswith("lost: vswapctl off vswap0 --force\n")
    assert forced.stdout == "vswap0 is down\n"
    assert started.read_text() == "takedown vswap0 --force\n"


def test_daemon_that_stays_after_off(vswapctl: Vswapctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "_PATIENCE_S", 0.1)
    with FakeDaemon("vswap0"):
        result = vswapctl("off")
    assert result.exit_code == 4
    assert "its process has not ended" in result.stderr


def test_takedown_that_fails(play: Play) -> None:
    play(Failure("unmount: busy", "", 3))
    with pytest.raises(HostError, match="unmount: busy"):
        launch.takedown("vswap0", lambda text: None, force=False)


def test_swapoff_that_gets_on_is_progress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "loop3/loop").mkdir(parents=True)
    (tmp_path / "loop3/loop/backing_file").write_text("/m/swap\n")
    (tmp_path / "loop4/loop").mkdir(parents=True)
    (tmp_path / "loop4/loop/backing_file").write_text("/other\n")
    swaps = tmp_path / "swaps"

    def write(ours_kib: int, other_kib: int) -> None:
        swaps.write_text(
            "Filename\tType\tSize\tUsed\tPriority\n"
            f"/dev/loop3 partition 1000 {ours_kib} 5\n/dev/loop4 partition 1000 {other_kib} 5\n"
        )

    monkeypatch.setattr(shutdown, "_LOOP_DEVICES", tmp_path)
    monkeypatch.setattr(shutdown, "_SWAPS", swaps)
    write(500, 500)
    swapoff = shutdown._Swapoff("/m")
    assert not swapoff.moves()
    write(400, 500)
    assert swapoff.moves()
    write(400, 100)
    assert not swapoff.moves()


# -- vswapfs ----------------------------------------------------------------------------------


def test_mount_becomes_the_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda path, arguments: became.append([path, *arguments]))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(vswapfs, ["mnt", "--size", "1G", "--name", "t"])
    assert result.exit_code == 0, result.output
    *command, config = became[0]
    assert command == [sys.executable, sys.executable, "-P", "-m", "vswapfs.daemon", "foreground"]
    assert json.loads(config)["mountpoint"] == str(tmp_path / "mnt")
    assert decode_config(config).swap is False


def test_mount_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    bad_name = CliRunner().invoke(vswapfs, ["/mnt", "--size", "1G", "--name", "a/b"])
    assert (bad_name.exit_code, bad_name.stderr[:9]) == (2, "vswapfs: ")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert CliRunner().invoke(vswapfs, []).exit_code == 5
    assert CliRunner().invoke(vswapfs, ["--version"]).exit_code == 0
