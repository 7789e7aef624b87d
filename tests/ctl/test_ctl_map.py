"""map against the tables of a real store: what the pictures show is what the store holds."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import FakeDaemon
from regions import make_buffers, make_page

from vswapfs.core.buffers import Geometry
from vswapfs.core.describe import state_of
from vswapfs.core.descriptor import place
from vswapfs.core.figures import figures
from vswapfs.core.store import Store
from vswapfs.core.tables import copy_segments, copy_words, segments_of, used_clusters
from vswapfs.ctl import grid, table
from vswapfs.format.chunk import ENCRYPTED_CHUNK_BYTES, PLAIN_CHUNK_BYTES, place_in_slot
from vswapfs.format.message import Done
from vswapfs.format.table import Area, AskTable, Segments, TierPlace
from vswapfs.units import PAGE_BYTES

PAGES = 8000  # the last cluster is not whole
SEGMENT_BYTES = 1 << 20
TIER_SLOTS = 6


@pytest.fixture(scope="module")
def store() -> Store:
    """Zeros, other markers, text and random pages, with holes; two segments on a tier."""
    rng = random.Random(7)
    geometry = Geometry(PAGES, 24, SEGMENT_BYTES, 1 << 10)
    store = Store(geometry, make_buffers(geometry))
    tier = store.segments.add_tier(TIER_SLOTS)
    for page in range(6000):
        kind = ("zero", "same", "text", "random")[page // 600 % 4]
        store.store(page, make_page(rng, kind))
    for segment in store.homes.candidates()[:2]:
        plan = store.homes.plan_write(segment)
        assert plan
        assert plan.tier == tier
        assert store.homes.end_write(plan, ok=True)
    for page in range(0, 3000, 3):
        store.discard(page, 1)
    store.discard(4096, 512)
    return store


def answers(store: Store) -> list[msgspec.Struct]:
    area = Area(PAGES, SEGMENT_BYTES, 24, [TierPlace(1, "/tier", TIER_SLOTS)], PLAIN_CHUNK_BYTES)
    words = copy_words(store, used_clusters(store))
    rows = segments_of(copy_segments(store), store.segments.now_s + 700)
    return [area, Segments(rows[:3]), Segments(rows[3:]), words, Done()]


@pytest.fixture
def daemon(store: Store) -> Iterator[FakeDaemon]:
    with FakeDaemon("vswap0", {AskTable: answers(store)}) as daemon:
        yield daemon


def states(store: Store) -> Counter[str]:
    return Counter(state_of(store, word) for word in store.words[:PAGES].tolist())


def test_json_of_pages_is_what_the_store_holds(
    vswapctl: Vswapctl, store: Store, daemon: FakeDaemon
) -> None:
    told = json.loads(vswapctl("map", "--json").stdout)
    truth, values = states(store), figures(store)
    assert {state: count for state, count in told["pages"].items() if count} == truth
    assert all(told["pages"][state] == values[f"pages.{state}"] for state in truth)
    assert sum(told["pages"].values()) == told["page_count"] == PAGES
    assert told["pool_bytes"] == values["pool.live_bytes"]
    assert told["disk_bytes"] == values["disk.live_bytes"] > 0
    clusters = told["clusters"]
    assert [cluster["offset"] // PAGE_BYTES // 512 for cluster in clusters] == [
        *range(8), 9, 10, 11
    ]  # fmt: skip
    for state in ("zero", "same", "pool", "disk"):
        assert sum(cluster[state] for cluster in clusters) == truth[state]
    assert {cluster["oldest_s"] for cluster in clusters} <= {None, 0, 700}
    assert sum(cluster["stored_bytes"] for cluster in clusters) == (
        values["pool.live_bytes"] + values["disk.live_bytes"]
    )


def test_json_of_segments_and_of_the_tier(
    vswapctl: Vswapctl, store: Store, daemon: FakeDaemon
) -> None:
    told = json.loads(vswapctl("map", "--segments", "--json").stdout)
    values = figures(store)
    in_ram = [segment for segment in told["segments"] if segment["tier"] is None]
    assert len(in_ram) == values["pool.segments"]
    assert sum(segment["live_bytes"] for segment in in_ram) == values["pool.live_bytes"]
    assert {segment["state"] for segment in in_ram} == {"open", "sealed"}
    on_tier = [segment for segment in told["segments"] if segment["tier"] == "/tier"]
    assert sum(segment["live_pages"] for segment in on_tier) == values["pages.disk"]
    assert daemon.requests == [AskTable(words=False)]

    (tier,) = json.loads(vswapctl("map", "--tier", "--json").stdout)["tiers"]
    assert [slot["slot"] for slot in tier["slots"]] == [0, 1]
    for slot in tier["slots"]:
        end = slot["byte_offset"] + slot["fill_bytes"]
        assert all(slot["byte_offset"] < start < stop <= end for start, stop in slot["live"])
        assert sum(stop - start for start, stop in slot["live"]) == slot["live_bytes"]
    assert sum(len(slot["live"]) for slot in tier["slots"]) > 100, "every third page is gone"


def test_in_the_terminal(vswapctl: Vswapctl, store: Store, daemon: FakeDaemon) -> None:
    result = vswapctl("map")
    assert result.exit_code == 0, result.output
    title, *lines = result.stdout.splitlines()
    assert title == "pages by state; a cell is 32.0K"
    rows = [line for line in lines if line.lstrip().startswith("0x")]
    assert [row.split()[0] for row in rows[:2]] == ["0x0", "0x200000"]
    cells = "".join(row.split()[1] for row in rows)
    assert len(cells) == PAGES // 8
    assert cells[512:576] == "." * 64
    assert set(cells) == set(".zspd")
    truth = states(store)
    assert f"d disk: {truth['disk']} slots" in lines
    assert f". empty: {truth['empty']} slots" in lines


@pytest.mark.parametrize(
    ("arguments", "title", "legend"),
    [
        (["--by", "ratio"], "pages by ratio; a cell is 32.0K", "r raw: does not compress: "),
        (["--by", "age"], "pages by age; a cell is 32.0K", "2 less than an hour: "),
        (["--segments"], "RAM: segments by utilization; a cell is 1.0M", "o open: being filled: 2"),
        (["--segments", "--by", "age"], "/tier: segments by age; a cell is 1.0M", ". free: 4"),
        (["--tier"], " 4 of 6 slots free; a cell is 8.0K", "S superblock: 256 blocks"),
    ],
)
def test_other_views(
    vswapctl: Vswapctl, daemon: FakeDaemon, arguments: list[str], title: str, legend: str
) -> None:
    result = vswapctl("map", *arguments)
    assert result.exit_code == 0, result.output
    assert title in result.stdout
    assert legend in result.stdout


def test_counts_of_every_view_are_whole(store: Store, daemon: FakeDaemon) -> None:
    found = table.fetch("vswap0")
    for by in ("state", "ratio", "age"):
        for cells_max in (1, 100, 8192):
            (each,) = grid.pages(found, by, cells_max)
            assert sum(each.counts) == PAGES
            assert len(each.cells) <= cells_max
            assert max(each.cells) < len(each.kinds)
    raw = next(n for n, kind in enumerate(grid.RATIOS) if kind.symbol == "r")
    assert grid.pages(found, "ratio", 1)[0].counts[raw] == figures(store)["pages.incompressible"]
    ram, tier = grid.segments(found, "utilization", 100)
    assert (sum(ram.counts), sum(tier.counts)) == (24, TIER_SLOTS)
    (blocks,) = grid.tiers(found, 100)
    assert sum(blocks.counts) == (TIER_SLOTS + 1) * SEGMENT_BYTES // PAGE_BYTES


@pytest.mark.parametrize("form", ["png", "svg"])
@pytest.mark.parametrize("arguments", [[], ["--segments"], ["--tier"]])
def test_files(
    vswapctl: Vswapctl, daemon: FakeDaemon, tmp_path: Path, form: str, arguments: list[str]
) -> None:
    path = tmp_path / f"map.{form}"
    result = vswapctl("map", *arguments, f"--{form}", str(path))
    assert (result.stdout, result.stderr, result.exit_code) == ("", "", 0)
    begin = path.read_bytes()[:200]
    assert begin.startswith(b"\x89PNG" if form == "png" else b"<?xml")


def test_errors(
    vswapctl: Vswapctl, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = vswapctl("map", "--segments", "--by", "ratio")
    assert wrong.exit_code == 2
    assert "--by ratio does not go with --segments: choose from utilization, age" in wrong.stderr
    wrong = vswapctl("map", "--tier", "--by", "age")
    assert "--by age does not go with --tier: leave it out" in wrong.stderr
    wrong = vswapctl("map", "--segments", "--tier")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "--segments and --tier exclude each other: leave one out" in wrong.stderr
    lost = vswapctl("map", "--png", str(tmp_path / "nowhere" / "x.png"))
    assert lost.exit_code == 3
    assert "write " in lost.stderr
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    bare = vswapctl("map", "--svg", "x.svg")
    assert bare.exit_code == 2
    assert "pip install 'vswapfs[pictures]'" in bare.stderr
    daemon.answers[AskTable] = [Done()]
    other = vswapctl("map")
    assert other.exit_code == 4
    daemon.answers[AskTable] = []
    assert "hung up" in vswapctl("map").stderr


def test_no_tier_is_said(vswapctl: Vswapctl, daemon: FakeDaemon) -> None:
    daemon.answers[AskTable] = [Area(512, SEGMENT_BYTES, 8, [], PLAIN_CHUNK_BYTES), Done()]
    result = vswapctl("map", "--tier")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "vswap0 has no tier\n", 0)
    drawn = vswapctl("map", "--tier", "--svg", "x.svg")
    assert (drawn.exit_code, "vswap0 has no tier to draw" in drawn.stderr) == (2, True)
    assert vswapctl("map").stdout.splitlines()[-1] == ". empty: 512 slots"


@pytest.mark.parametrize("chunk_bytes", [PLAIN_CHUNK_BYTES, ENCRYPTED_CHUNK_BYTES])
def test_extents_are_the_bytes_of_records_and_no_tags(store: Store, chunk_bytes: int) -> None:
    area = Area(PAGES, SEGMENT_BYTES, 24, [TierPlace(1, "/tier", TIER_SLOTS)], chunk_bytes)
    found = table.Table(area)
    rows = segments_of(copy_segments(store), store.segments.now_s)
    found.segments |= {segment.number: segment for segment in rows}
    found.take(copy_words(store, used_clusters(store)))
    here = found.segments_on(1)
    extents = sorted(grid.live_extents(found, here))
    base = {(segment.slot + 1) * SEGMENT_BYTES for segment in here.values()}
    truth = set()
    for word in store.words[:PAGES].tolist():
        if state_of(store, word) == "disk":
            number, offset, length = place(word)
            start = (here[number].slot + 1) * SEGMENT_BYTES
            truth |= {
                start + place_in_slot(byte, chunk_bytes) for byte in range(offset, offset + length)
            }
    assert base
    assert {byte for start, stop in extents for byte in range(start, stop)} == truth
