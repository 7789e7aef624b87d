"""top: the model, the screen from a recording, and the application's keys."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from ctl.fake_daemon import TIERS, FakeDaemon, make_stats, make_status
from textual.widgets import Static

from vswapfs.ctl import feed, screen
from vswapfs.ctl.history import History
from vswapfs.ctl.top_app import TopApp
from vswapfs.errors import RecordingError
from vswapfs.format import instance
from vswapfs.format.histogram import BUCKETS, bucket_of, upper_us
from vswapfs.format.message import AskSample, Histogram, Sample

HERE = Path(__file__).parent
RECORDED = HERE / "workload.rec"
GOLDEN = HERE / "top.txt"


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def make_sample(unix_s: float, *, worker_pid: int = 42, loads_us: int = 0, **values: int) -> Sample:
    """Keys of values have __ for the dot."""
    stats = make_stats()
    stats.values |= {key.replace("__", "."): value for key, value in values.items()}
    counts = [0] * BUCKETS
    counts[bucket_of(loads_us * 1000)] = loads_us
    stats.histograms["latency.load"] = Histogram(counts, 0)
    status = make_status("vswap0", worker_pid=worker_pid, tiers=TIERS, takeovers=0)
    return Sample(unix_s, status, stats)


# -- the model --------------------------------------------------------------------------------


def test_rates_are_by_the_second_and_unknown_across_a_change_of_worker() -> None:
    history = History()
    history.add(make_sample(100, pages__stored_total=1000))
    assert history.rate("pages.stored_total") is None
    history.add(make_sample(102, pages__stored_total=1500))
    assert history.rate("pages.stored_total") == 250
    history.add(make_sample(103, pages__stored_total=10, worker_pid=43))
    history.add(make_sample(104, pages__stored_total=20, worker_pid=43))
    history.add(make_sample(103.5, pages__stored_total=30, worker_pid=43))  # the clock was set
    assert history.rates("pages.stored_total", 10) == [250, None, 10, None]
    assert history.rate("no.such_total") is None


def test_percentiles_are_those_of_the_last_seconds() -> None:
    history = History()
    for second, loads_us in ((0, 5), (20, 5), (21, 5)):
        history.add(make_sample(second, loads_us=loads_us))
    assert history.latency_us("latency.load", 50) is None
    history.add(make_sample(22, loads_us=900))
    found = history.latency_us("latency.load", 50)
    assert found == upper_us(bucket_of(900_000))


# -- the screen -------------------------------------------------------------------------------


def recorded() -> History:
    history = History()
    for sample in feed.read(str(RECORDED), RECORDED.name)[1]:
        history.add(sample)
    return history


def drawn(width: int, height: int, history: History, shown: screen.Shown) -> list[str]:
    return [line.rstrip() for line in screen.draw(history, shown, width, height).plain.split("\n")]


def test_screen_of_a_recording_is_the_golden_one() -> None:
    lines = drawn(80, 23, recorded(), screen.Shown(1.0))
    assert "\n".join(lines) + "\n" == GOLDEN.read_text(), (
        "if it is to look like this now, write it to top.txt"
    )


@pytest.mark.parametrize(("width", "height"), [(80, 23), (120, 23), (200, 60)])
def test_lines_fit(width: int, height: int) -> None:
    history = recorded()
    long = msgspec.structs.replace(TIERS[0], path="/dev/disk/by-id/" + "x" * 250)
    history.latest.status.tiers += [long, *TIERS * 4]
    for notice in ("", "vswap0 is dead" * 10):
        lines = drawn(width, height, history, screen.Shown(1.0, notice=notice))
        assert [line for line in lines if len(line) > width] == []
        assert len(lines) <= height
        assert any(line.startswith("warning: ") for line in lines)


def test_a_new_instance_without_anything_can_be_drawn() -> None:
    history = History()
    bare = make_status(
        "a", pages={"empty": 0}, size_bytes=0, used_bytes=0, swap_used_bytes=None, ratio=None,
        loop_device=None, swap_priority=None, pool_limit_bytes=0, pool_used_bytes=0, hardening=[],
    )  # fmt: skip
    stats = make_stats()
    stats.values.clear()
    stats.histograms.clear()
    history.add(Sample(0.0, bare, stats))
    text = "\n".join(drawn(80, 23, history, screen.Shown(1.0)))
    assert "no swap" in text
    assert "warning" not in text


def test_nothing_in_a_recording_commands_the_terminal() -> None:
    sample = make_sample(100)
    sample.status.name = "a\x1b[2Jb"
    sample.status.version = "1\n2\r3"
    sample.status.tiers[0].path = "/\x1b]0;title\x07"
    sample.status.hardening[1].detail = "\x9b2J\u202e"
    history = History()
    history.add(sample)
    drawn = screen.draw(history, screen.Shown(1.0, notice="\x1bc"), 100, 30)
    assert all(line.isprintable() for line in drawn.plain.split("\n"))
    assert "a·[2Jb" in drawn.plain


@pytest.mark.parametrize("used_bytes", [-(1 << 62), 1 << 62])
def test_a_bar_is_never_longer_than_its_place(used_bytes: int) -> None:
    sample = make_sample(100)
    sample.status.tiers[0].used_bytes = sample.status.pool_used_bytes = used_bytes
    sample.status.tiers[0].size_bytes = sample.status.pool_limit_bytes = 1
    history = History()
    history.add(sample)
    assert len(screen.draw(history, screen.Shown(1.0), 80, 23).plain) < 80 * 30


# -- the application --------------------------------------------------------------------------


def text_of(app: TopApp) -> str:
    return str(app.query_one("#figures", Static).render())


async def settle(app: TopApp, wanted: str) -> str:
    """Wait until the screen shows it."""
    for _ in range(200):
        if wanted in text_of(app):
            return text_of(app)
        await asyncio.sleep(0.02)
    raise AssertionError(f"{wanted!r} is not in\n{text_of(app)}")


def test_keys(run_directory: Path) -> None:
    async def drive() -> None:
        app = TopApp(feed.Live("a"), 1.0)
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(app, "a  running  up 1h02m")
            await pilot.press("plus")
            await settle(app, "every 2s")
            await pilot.press("minus", "minus")
            await settle(app, "every 0.5s")
            await pilot.press("space")
            await settle(app, "PAUSED")
            asked = len(one.requests)
            await asyncio.sleep(0.7)
            assert len(one.requests) == asked
            await pilot.press("i")
            await pilot.press("space")
            await settle(app, "b  running")
            await pilot.press("h")
            await pilot.pause()
            assert "next instance" in str(app.screen.query_one(Static).render())
            await pilot.press("h")
            await pilot.press("i")
            await settle(app, "a  running")
            await pilot.press("q")
        assert app.return_code == 0

    with FakeDaemon("a") as one, FakeDaemon("b"):
        asyncio.run(drive())


def test_a_daemon_that_ends_and_comes_back(run_directory: Path) -> None:
    async def drive() -> None:
        app = TopApp(feed.Live("a"), 0.1)
        async with app.run_test(size=(80, 24)):
            with FakeDaemon("a"):
                await settle(app, "a  running")
            shown = await settle(app, "! a is dead: its daemon ended without clearing up; trying")
            assert "a  running" in shown, "the last figures stay"
            shutil.rmtree(instance.directory("a"))
            await settle(app, "no such instance: a")
            with FakeDaemon("a", {AskSample: [make_sample(5, worker_pid=77)]}):
                shown = await settle(app, "worker 77")
            assert "trying" not in shown

    asyncio.run(drive())


def test_replay_to_the_end(tmp_path: Path) -> None:
    async def drive(path: Path, wanted: str) -> TopApp:
        app = TopApp(feed.Recorded(str(path)), 0.01)
        async with app.run_test(size=(80, 24)) as pilot:
            shown = await settle(app, wanted)
            assert "recording" in shown
            assert "22:05:28" in shown
            await pilot.press("q")
        return app

    assert asyncio.run(drive(RECORDED, "this is the end of the recording")).failure is None
    cut = tmp_path / "cut.rec"
    cut.write_bytes(b"".join(RECORDED.read_bytes().splitlines(keepends=True)[:-1]))
    failure = asyncio.run(drive(cut, "cut short after 12 samples")).failure
    assert isinstance(failure, RecordingError)


def test_other_commands_do_not_import_its_library() -> None:
    script = (
        "import sys, vswapfs.ctl.cli; "
        "print([n for n in ('textual', 'prometheus_client', 'rich') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"[]\n"
