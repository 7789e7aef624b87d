"""Damage to tiers: never wrong bytes, and no earlier version of a page either."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import damage
import pytest
from click.testing import CliRunner, Result
from damage_kinds import KINDS, SUPERBLOCK_KINDS, SUPERBLOCK_SLOT, damaged_states
from damage_lab import MIXED, SAME_ORDER, Lab, Tally, none_returns
from regions import deadline
from rich.progress import Progress

from vswapfs.ctl.cli import cli
from vswapfs.daemon import record_reader
from vswapfs.errors import LostPageError

CASES = 160
FEW_DISTINCT = ("misplace", "replay")
"""An image has few of them."""
LONG_CASES = 1000
PAGE_KINDS = tuple(kind for kind in KINDS if kind not in SUPERBLOCK_KINDS)
NOT_IN_RECORDS = ("flip-segment-header",)


@pytest.fixture(scope="module")
def labs() -> list[Lab]:
    return [Lab(MIXED, seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def same_order() -> Lab:
    return Lab(SAME_ORDER, 1)


def run(labs: list[Lab], kind: str, cases: int) -> Tally:
    tally = Tally()
    for index in range(cases):
        tally.add(labs[index % len(labs)].case(kind, index))
    return tally


def check(kind: str, tally: Tally) -> None:
    """What has to hold of any cases of a kind."""
    assert tally.affected == tally.detected + tally.harmless + tally.undetected, tally
    assert tally.undetected == 0, tally
    assert tally.scrub_missed_cases == 0, tally
    if kind not in ("flip-bit", "flip-record-header"):  # the length in the tag is not used
        assert tally.harmless == 0, tally
    if kind in ("flip-segment-header", "superblock-flip", "superblock-zero"):
        assert tally.log_check_cases == tally.cases, tally


@pytest.mark.parametrize("kind", KINDS)
def test_no_wrong_page(labs: list[Lab], kind: str) -> None:
    with deadline(60):
        tally = run(labs, kind, CASES // 4 if kind in FEW_DISTINCT else CASES)
    check(kind, tally)
    # They could have gone wrong: pages were hit, and no checksum would have let some through.
    if kind in SUPERBLOCK_KINDS:
        assert tally.affected == tally.scrub_cases == 0
    elif kind in NOT_IN_RECORDS:
        assert tally.affected == 0
        assert tally.scrub_cases == tally.cases
    else:
        assert tally.detected > tally.cases // 2, tally
        assert tally.scrub_cases > tally.cases // 2, tally
        assert tally.none_undetected > 0 or kind == "flip-record-header", tally


@pytest.mark.parametrize("kind", KINDS)
def test_each_case_changes_the_medium_and_is_undone(labs: list[Lab], kind: str) -> None:
    lab = labs[0]
    for index in range(5):
        found = lab.draw(kind, index)
        states = damaged_states(found, lab.image)
        lab.put(found, states)
        there = {slot: read(lab, slot) for slot in states}
        assert there == states
        used = {slot: lab.image[slot].fill_bytes for slot in states}
        base = {slot: lab.image[slot].states[0] for slot in states}
        assert any(there[slot][: used[slot]] != base[slot][: used[slot]] for slot in states)
        lab.put(found, {slot: bytearray(base[slot]) for slot in states})
        lab.case(kind, index)
        assert {slot: read(lab, slot) for slot in states} == base


def test_same_seed_same_cases(labs: list[Lab]) -> None:
    again = Lab(MIXED, labs[0].seed)
    for kind in KINDS:
        assert [again.draw(kind, n) for n in range(5)] == [labs[0].draw(kind, n) for n in range(5)]
    assert len({labs[0].draw("flip-bit", n).text for n in range(CASES)}) == CASES


@pytest.mark.parametrize("kind", ["flip-bit", "swap-sectors", "misplace"])
def test_verification_that_checks_nothing_is_noticed(
    labs: list[Lab], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def careless(page: int, _word: int, _sequence: int, found: memoryview) -> bytes:
        data = none_returns(found)
        if data is None:
            raise LostPageError(page, "decoder")
        return data

    monkeypatch.setattr(record_reader, "verify", careless)
    tally = run(labs, kind, 25)
    assert tally.undetected == tally.none_undetected > 0


@pytest.mark.parametrize("kind", ["misplace", "replay", "tear"])
def test_earlier_version_of_a_page_is_noticed(same_order: Lab, kind: str) -> None:
    """These can put one, whole, in the place of the page's record."""
    tally = run([same_order], kind, 20)
    check(kind, tally)
    assert tally.detected > 0


# -- against the commands ---------------------------------------------------------------------


def read(lab: Lab, slot: int) -> bytes:
    return lab._read(slot)


def dump(lab: Lab, path: Path) -> None:
    slots = range(SUPERBLOCK_SLOT, lab.recipe.tier_slots)
    path.write_bytes(b"".join(read(lab, slot) for slot in slots))


def log_check(path: Path) -> int:
    return CliRunner().invoke(cli, ["log", "check", str(path)]).exit_code


@pytest.mark.parametrize("kind", KINDS)
def test_log_check_on_a_file_agrees(labs: list[Lab], tmp_path: Path, kind: str) -> None:
    lab, path = labs[0], tmp_path / "tier"
    dump(lab, path)
    expected = lab.case(kind, 1).log_check_cases
    found = lab.draw(kind, 1)
    with path.open("r+b") as file:
        for slot, state in damaged_states(found, lab.image).items():
            file.seek((slot + 1) << 20)
            file.write(state)
    assert log_check(path) == expected, found.text


@pytest.fixture
def inject(tmp_path: Path, labs: list[Lab]) -> Callable[[str], tuple[Result, Path, bytes]]:
    path = tmp_path / "tier"
    dump(labs[0], path)
    before = path.read_bytes()

    def inject(kind: str) -> tuple[Result, Path, bytes]:
        command = ["inject", str(path), "--kind", kind, "--seed", "3"]
        return CliRunner().invoke(damage.main, command), path, before

    return inject


@pytest.mark.parametrize("kind", ["flip-bit", "misplace", "tear", "superblock-zero"])
def test_inject(inject: Callable[[str], tuple[Result, Path, bytes]], kind: str) -> None:
    result, path, before = inject(kind)
    assert result.exit_code == 0, result.output
    after = path.read_bytes()
    assert len(after) == len(before)
    new, old = memoryview(after), memoryview(before)
    block = next(at for at in range(0, len(after), 4096) if new[at:][:4096] != old[at:][:4096])
    first = next(at for at in range(block, len(after)) if after[at] != before[at])
    assert str(first) in result.output
    assert log_check(path) == 1


@pytest.mark.parametrize("kind", ["replay", "superblock-replay"])
def test_inject_refuses_what_a_tier_at_rest_cannot_show(
    inject: Callable[[str], tuple[Result, Path, bytes]], kind: str
) -> None:
    result, path, before = inject(kind)
    assert result.exit_code == 1
    assert "does not keep" in result.output
    assert path.read_bytes() == before


def test_inject_refuses_a_tier_in_use(
    inject: Callable[[str], tuple[Result, Path, bytes]], tmp_path: Path
) -> None:
    with (tmp_path / "tier").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result, path, before = inject("flip-bit")
    assert result.exit_code == 1
    assert "in use" in result.output
    assert path.read_bytes() == before


def test_inject_refuses_what_is_not_there_or_no_tier(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "zeros"):
        if path.name == "zeros":
            path.write_bytes(bytes(1 << 22))
        result = CliRunner().invoke(damage.main, ["inject", str(path), "--kind", "flip-bit"])
        assert result.exit_code == 1, result.output
    assert not (tmp_path / "none").exists()
    assert (tmp_path / "zeros").read_bytes() == bytes(1 << 22)


def test_run_on_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tier"
    command = ["run", "--cases", "3", "--kind", "flip-bit", "--kind", "tear", "--json"]
    on_file = CliRunner().invoke(damage.main, [*command, "--file", str(path)])
    assert on_file.exit_code == 0, on_file.output
    assert '"undetected": 0' in on_file.output
    assert log_check(path) == 0


# -- many -------------------------------------------------------------------------------------


@pytest.mark.long
def test_no_wrong_page_in_ten_thousand_cases() -> None:
    todo = damage.rounds_of(MIXED, KINDS, LONG_CASES, seed=2)
    with deadline(900), Progress(disable=True) as progress:
        tallies = damage.run_rounds(todo, None, 2, progress)
    assert sum(tally.cases for tally in tallies.values()) >= 10_000
    for kind, tally in tallies.items():
        assert tally.cases == LONG_CASES
        check(kind, tally)
    assert sum(tally.detected for tally in tallies.values()) > 10_000
