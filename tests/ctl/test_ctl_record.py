"""record and replay: what was written comes back, and what was changed since does not."""

import errno
import json
import os
import signal
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from subprocess import Popen
from typing import Any

import msgspec
import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import FakeDaemon
from machine import wait_until
from xxhash import xxh3_64_intdigest

from vswapfs.ctl import client, feed
from vswapfs.ctl import top as commands
from vswapfs.ctl.history import History
from vswapfs.ctl.screen import Shown, draw
from vswapfs.errors import HostError, RecordingError
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


@contextmanager
def recording_to(path: Path, run_directory: Path, *, ignored: int = 0) -> Iterator[Popen[bytes]]:
    """In a process of its own, which has begun."""
    script = f"""
import signal
if {ignored}:
    signal.signal({ignored}, signal.SIG_IGN)
from vswapfs.format import instance
instance.RUN_DIRECTORY = {str(run_directory)!r}
from vswapfs.ctl.cli import main
main()
"""
    with FakeDaemon("vswap0"):
        command = [sys.executable, "-c", script, "record", str(path), "--interval", "0.1"]
        with Popen(command) as process:
            try:
                wait_until("it has begun", lambda: lines_of(path) >= 3)
                yield process
            finally:
                process.kill()


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_recording(
    run_directory: Path, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "a.rec"
    with recording_to(path, run_directory) as process:
        process.send_signal(number)
        assert process.wait(20) == 0
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(list(recording.read_samples(lines[1:], "x"))) == len(lines) - 2


def test_a_signal_that_is_ignored_does_not(run_directory: Path, tmp_path: Path) -> None:
    """As by nohup."""
    path = tmp_path / "a.rec"
    with recording_to(path, run_directory, ignored=signal.SIGHUP) as process:
        process.send_signal(signal.SIGHUP)
        before = lines_of(path)
        wait_until("it goes on", lambda: lines_of(path) > before + 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


class FullForAWhile(FileIO):
    """Takes a part of the third line, says that it is full, and has room again."""

    writes = 0

    def write(self, data: Any) -> int:
        self.writes += 1
        if self.writes == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:100] if self.writes == 3 else data)


def test_a_full_disk_leaves_no_part_of_a_line(vswapctl: Vswapctl, tmp_path: Path) -> None:
    path = str(tmp_path / "a.rec")
    with (
        FakeDaemon("vswap0"),
        FullForAWhile(path, "x") as file,
        pytest.raises(HostError, match=r"a.rec: No space left"),
    ):
        commands._record("vswap0", feed.ask_sample("vswap0"), file, 0.01, 5)
    result = vswapctl("replay", path, "--json")
    assert (len(result.stdout.splitlines()), result.exit_code) == (1, 0)


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


def with_first_sample(change: Callable[[dict[str, Any]], object]) -> list[bytes]:
    """The recording with another first sample, whose checksum is right."""
    lines = RECORDED.read_bytes().splitlines(keepends=True)
    sample = json.loads(lines[1].partition(b" ")[2])
    change(sample)
    text = msgspec.json.encode(sample)
    lines[1] = b"%016x %b\n" % (xxh3_64_intdigest(text, seed=1), text)
    return lines


@pytest.mark.parametrize(
    "change",
    [
        lambda sample: sample.update(unix_s=1e300),
        lambda sample: sample.update(unix_s=-5.0),
        lambda sample: sample["status"].update(size_bytes=10**400),
        lambda sample: sample["status"]["pages"].update(pool=1 << 60, disk=1 - (1 << 60)),
        lambda sample: sample["stats"]["values"].update({"memory.total_bytes": 1e300}),
        lambda sample: sample["stats"]["histograms"]["latency.load"]["counts"].pop(),
        lambda sample: sample["stats"]["histograms"]["latency.load"]["counts"].append(-1),
    ],
    ids=["far time", "time below 0", "size", "pages below 0", "figure", "short", "negative count"],
)
def test_a_sample_that_cannot_be_is_damage(change: Callable[[dict[str, Any]], object]) -> None:
    """Its checksum is right, so it reached the view, which died of it."""
    with pytest.raises(RecordingError, match=r"damaged in line 2: impossible"):
        next(recording.read_samples(with_first_sample(change)[1:], "x"))


@pytest.mark.parametrize("interval_s", [0.0, -1.0, 1e9])
def test_an_interval_that_cannot_be(interval_s: float) -> None:
    first = recording.line(0, recording.Header(recording.VERSION, "a", interval_s))
    with pytest.raises(RecordingError, match="damaged in line 1: impossible"):
        recording.read_header(first, "x")


def test_counters_that_go_down_are_drawn() -> None:
    history = History()
    samples = list(recording.read_samples(RECORDED.read_bytes().splitlines(True)[1:], "x"))
    for number, loaded in enumerate((5, 6, 1)):
        samples[number].stats.values["pages.loaded_total"] = loaded
        history.add(samples[number])
        assert draw(history, Shown(1.0), 80, 23)


@pytest.mark.parametrize("rest", [b"[" * 100_000, b'"\xff"'], ids=["deep", "not UTF-8"])
def test_what_is_not_json_is_no_recording(rest: bytes) -> None:
    with pytest.raises(RecordingError, match="not a recording"):
        recording.read_header(b"0" * 16 + b" " + rest + b"\n", "x")
    with pytest.raises(RecordingError, match="damaged in line 2"):
        next(recording.read_samples([b"%016x %b\n" % (xxh3_64_intdigest(rest, seed=1), rest)], "x"))


def test_a_line_without_an_end_is_not_read_to_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    path.write_bytes(b"".join(RECORDED.read_bytes().splitlines(keepends=True)[:2]))
    os.truncate(path, 256 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(RecordingError, match="cut short after 1 samples"):
            list(feed.read(str(path), "a.rec")[1])
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
