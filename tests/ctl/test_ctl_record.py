"""record and replay: what was written comes back, and what was changed since does not."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import FakeDaemon

from vswapfs.ctl import client
from vswapfs.ctl import top as commands
from vswapfs.errors import RecordingError
from vswapfs.format import recording
from vswapfs.format.message import AskSample, Failure

RECORDED = Path(__file__).with_name("workload.rec")
"""Of a real instance under tests/workloads.workload, by vswapctl record --interval 0.5."""


def test_what_is_recorded_is_replayed(vswapctl: Vswapctl, tmp_path: Path) -> None:
    path = str(tmp_path / "a.rec")
    with FakeDaemon("vswap0"):
        result = vswapctl("record", "vswap0", path, "--interval", "0.1", "--count", "3")
        assert (result.exit_code, result.stderr) == (0, f"3 samples are in {path}\n")
        stats = json.loads(vswapctl("stats", "--json").stdout)
        (status,) = json.loads(vswapctl("status", "--json").stdout)
    samples = [json.loads(line) for line in vswapctl("replay", path, "--json").stdout.splitlines()]
    assert len(samples) == 3
    assert samples[0]["stats"] == stats
    assert {**samples[0]["status"], "state": "running"} == status
    assert set(samples[0]["histograms"]) == {"latency.load", "latency.store"}


def test_an_existing_file_is_kept(vswapctl: Vswapctl, tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    path.write_text("mine")
    with FakeDaemon("vswap0"):
        result = vswapctl("record", str(path))
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert path.read_text() == "mine"


def test_a_recording_ends_well_when_the_daemon_does(
    vswapctl: Vswapctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_PATIENCE_S", 0.0)
    path = str(tmp_path / "a.rec")
    with FakeDaemon("vswap0") as daemon:
        answers = list(daemon.answers[AskSample])
        hang_up = b""
        rounds = iter([None, None])

        def end_some_time() -> None:
            if next(rounds, "end") == "end":
                daemon.answers[AskSample] = [hang_up]

        daemon.answers[AskSample] = [*answers, end_some_time]
        result = vswapctl("record", path, "--interval", "0.1")
    assert result.exit_code == client.NotAnsweringError.exit_code
    assert "hung up" in result.stderr
    assert len(vswapctl("replay", path, "--json").stdout.splitlines()) == 3


def test_sigterm_ends_a_recording(run_directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    script = f"""
from vswapfs.format import instance
instance.RUN_DIRECTORY = {str(run_directory)!r}
from vswapfs.ctl.cli import main
main()
"""
    with FakeDaemon("vswap0"):
        command = [sys.executable, "-c", script, "record", str(path), "--interval", "0.1"]
        with subprocess.Popen(command) as process:
            deadline = time.monotonic() + 20
            while not path.exists() or path.read_bytes().count(b"\n") < 3:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(list(recording.read_samples(lines[1:], "x"))) == len(lines) - 2


Change = Callable[[list[bytes]], list[bytes]]


@pytest.mark.parametrize(
    ("change", "message", "left"),
    [
        (lambda lines: lines[:-1], "is cut short after 12 samples", 12),
        (lambda lines: [*lines[:4], lines[4][:-1]], "is cut short after 3 samples", 3),
        (lambda lines: lines[:1], "is cut short after 0 samples", 0),
        (lambda lines: lines[:4] + lines[5:], "is damaged in line 5: its checksum", 3),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "is damaged in line 4", 2),
        (lambda lines: [*lines[:5], b"x\n", *lines[6:]], "is damaged in line 6", 4),
        (lambda lines: [lines[0].replace(b"eyes0", b"eyes1"), *lines[1:]], "in line 1: its", 0),
        (lambda lines: [lines[0].replace(b'n":1,', b'n":2,')], "a recording of version 2;", 0),
        (lambda lines: [], "is not a recording", 0),
        (lambda lines: lines[1:], "is not a recording", 0),
        (lambda lines: [b"\x7fELF" + bytes(100_000)], "is not a recording", 0),
    ],
)
def test_damage_is_told_and_what_is_before_it_is_shown(
    vswapctl: Vswapctl, tmp_path: Path, change: Change, message: str, left: int
) -> None:
    path = tmp_path / "a.rec"
    path.write_bytes(b"".join(change(RECORDED.read_bytes().splitlines(keepends=True))))
    result = vswapctl("replay", str(path), "--json")
    assert result.exit_code == RecordingError.exit_code == 6
    assert f"vswapctl: {path} {message}" in result.stderr or message in result.stderr
    assert len(result.stdout.splitlines()) == left


def test_every_changed_byte_is_noticed() -> None:
    lines = RECORDED.read_bytes().splitlines(keepends=True)
    first = lines[1]
    for at in range(0, len(first) - 1, 7):
        changed = first[:at] + bytes([first[at] ^ 1]) + first[at + 1 :]
        with pytest.raises(RecordingError, match=r"damaged in line 2|cut short after 0"):
            list(recording.read_samples([changed, *lines[2:]], "x"))


def test_no_such_file(vswapctl: Vswapctl) -> None:
    result = vswapctl("replay", "/nowhere/a.rec", "--json")
    assert result.exit_code == 2
    assert "/nowhere/a.rec: No such file or directory" in result.stderr


@pytest.mark.parametrize("words", [("top", "c"), ("record", "c", "x.rec"), ("top",)])
def test_no_such_instance(vswapctl: Vswapctl, words: tuple[str, ...]) -> None:
    result = vswapctl(*words)
    assert result.exit_code == 4
    assert "no such instance: c" in result.stderr or "no instance is up" in result.stderr


@pytest.mark.parametrize("words", [("top",), ("record", "x.rec"), ("metrics", "vswap0")])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Failure("not a request: Invalid value 'sample'", "", 2), "its daemon is of another ver"),
        (b'{"type":"sample","unix_s":1}\n', "does not understand"),
    ],
)
def test_a_daemon_of_another_version(
    vswapctl: Vswapctl, words: tuple[str, ...], answer: Failure | bytes, message: str
) -> None:
    with FakeDaemon("vswap0", {AskSample: [answer]}):
        result = vswapctl(*words)
    assert result.exit_code == 4
    assert message in result.stderr


@pytest.mark.parametrize("words", [("top", "a/b"), ("record", "a/b", "x"), ("metrics", "a/b")])
def test_an_impossible_name(vswapctl: Vswapctl, words: tuple[str, ...]) -> None:
    result = vswapctl(*words)
    assert result.exit_code == 2
    assert "'a/b' is not a name" in result.stderr


def test_a_view_needs_a_terminal(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0"):
        result = vswapctl("top")
    assert result.exit_code == 2
    assert "this needs a terminal" in result.stderr
    assert vswapctl("replay", str(RECORDED)).exit_code == 2
