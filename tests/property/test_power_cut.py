"""Power cuts at every kind of write to a tier, what was not flushed kept, torn, lost or reordered:
`log check` and `log dump` tell what is whole and nothing else, and the tier is taken again."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from cut_log import KINDS, MIB, Operation, recording
from cut_media import ANY, HOWS, CutMedium, choose_cuts
from cut_truth import Said, Truth, holds_at, judge, judge_taken, label_in, may_take
from regions import deadline
from sim.simulation import NO_FAULTS, Disk, Draws, Simulation

from vswapfs.backing import claim
from vswapfs.backing import file as file_module
from vswapfs.backing.faulty import FaultyBacking
from vswapfs.core import budget
from vswapfs.core.buffers import Geometry
from vswapfs.ctl.cli import cli
from vswapfs.daemon import medium
from vswapfs.daemon.tier import Tier
from vswapfs.errors import HostError
from vswapfs.format.message import TierConfig

GEOMETRY = Geometry(3000, 6, MIB, 2000)
SLOTS = 5
TIER_BYTES = (SLOTS + 1) * MIB
PATHS = 3
STEPS_MAX = 60_000

Logs = dict[str, list[Operation]]


@dataclass
class Instance(Simulation):
    """An instance whose tiers are files that are treated as devices, and recorded."""

    directory: Path = field(default_factory=Path)
    logs: Logs = field(default_factory=dict)

    def add_tier(self, slot_count: int) -> Tier:
        used = {tier.path for tier in self.tiering.tiers.values()}
        (path, *_) = [path for path in paths(self.directory) if str(path) not in used]
        config = TierConfig(str(path), TIER_BYTES, overwrite=True)
        backing, superblock = medium.open_tier(config, "vswap0", MIB, encrypt=self.encrypt)
        disk = Disk(self, TIER_BYTES, Draws(self.rng, NO_FAULTS))
        disk.faulty = FaultyBacking(backing, disk.plan)
        self.disks.append(disk)
        return self.tiering.add(str(path), disk, superblock)

    def live(self, segments: int) -> None:
        """Until so many more segments were written; then the power goes."""
        self.add_tier(SLOTS)
        target = self.segments_written() + segments
        for self.number in range(STEPS_MAX):
            self.step()
            if self.number % 100 == 0 and self.segments_written() >= target:
                break
        for disk in self.disks:
            if not disk.closed:
                disk.close()

    def segments_written(self) -> int:
        return sum(each.kind == "segment" for log in self.logs.values() for each in log)


def paths(directory: Path) -> list[Path]:
    return [directory / f"tier{number}" for number in range(PATHS)]


@pytest.fixture
def as_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether files are cleared as devices are: by a discard, which zeroes nothing here."""

    def taken(*arguments: object, **options: object) -> claim.Claim:
        found: claim.Claim = claim.claim(*arguments, **options)  # type: ignore[arg-type]
        return found._replace(is_device=True, created=False)

    def switch(on: bool) -> None:
        monkeypatch.setattr(file_module, "claim", taken if on else claim.claim)

    return switch


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Logs:
    logs: Logs = {}
    recorder = recording(logs)
    # The pool of the simulation is not page-aligned.
    monkeypatch.setattr(recorder, "_use_direct_io", lambda _self, _path: None)
    monkeypatch.setattr(medium, "FileBacking", recorder)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(budget, "CHUNK_BYTES", 3 * MIB)
    return logs


class Cuts:
    """The cases: where, how, and what has to be true of them."""

    def __init__(self, path: Path, logs: Logs, truth: Truth, rng: random.Random) -> None:
        self._path = path
        self._logs = logs
        self._truth = truth
        self._rng = rng
        self.counts = dict.fromkeys((*KINDS, *HOWS), 0)
        self.torn = self.refused = 0

    def cut(
        self, operations: list[Operation], cases: int, as_device: Callable[[bool], None]
    ) -> None:
        """At moments of all kinds, of one tier's life from all zero on."""
        rng = self._rng
        held = holds_at(operations, before=False)
        before = bytes(TIER_BYTES)
        media = [CutMedium(before, operations, trims_zero=zero) for zero in (False, True)]
        for position, how in choose_cuts(operations, cases, rng):
            device = rng.choice(media)
            device.advance(position)
            as_device(rng.random() < 0.5)
            image = device.image(how, rng)
            self.counts[operations[position - 1].kind] += 1
            self.counts[how] += 1
            faults = self.judge(image, must_hold=held[position])
            assert not faults, f"cut after operation {position}, {how}: {faults[:5]}"

    def judge(self, image: bytearray, *, must_hold: bool) -> list[str]:
        self._path.write_bytes(image)
        said = self._look()
        faults = judge(image, self._truth, said)
        if must_hold and label_in(image, self._truth) is None:
            faults.append("no superblock is whole")
        self.torn += bool(said.check and said.check["damaged"])
        return faults or self._take(image)

    def _look(self) -> Said:
        check = run("log", "check", str(self._path), "--json")
        dump = run("log", "dump", str(self._path), "--records", "--json")
        return said(check, dump)

    def _take(self, image: bytearray) -> list[str]:
        """As `on` does; and the power goes again while it does."""
        self._logs.clear()
        config = TierConfig(str(self._path), TIER_BYTES)
        may = may_take(image, self._truth)
        try:
            backing, _superblock = medium.open_tier(config, "vswap0", MIB, encrypt=False)
        except HostError as error:
            self.refused += 1
            if may or "--tier-overwrite" not in error.remedy:
                return [f"on: {error}"]
            if self._path.read_bytes() != image:
                return ["on refused the tier and changed it"]
            config.overwrite = True
            backing, _superblock = medium.open_tier(config, "vswap0", MIB, encrypt=False)
        else:
            if not may:
                backing.close()
                return ["on has taken what may be somebody's"]
        backing.close()
        after = self._path.read_bytes()
        (operations,) = self._logs.values()
        known = Truth()
        known.versions = self._truth.versions
        known.superblocks = set(self._truth.superblocks)
        known.learn(operations)
        now = self._look()
        faults = judge(after, known, now) + judge_taken(image, after, self._truth)
        if now.check is None or any(f["slot"] is None for f in now.check["findings"]):
            faults.append(f"after on: {now}"[:300])
        again = CutMedium(bytes(image), operations)
        again.advance(self._rng.randrange(len(operations) + 1))
        second = again.image(ANY, self._rng)
        if label_in(image, self._truth) and label_in(second, known) is None:
            faults.append("a second cut, while it was taken: no superblock is whole")
        return faults


def run(*words: str) -> Result:
    result = CliRunner().invoke(cli, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def said(check: Result, dump: Result) -> Said:
    parsed = [
        msgspec.json.decode(each.stdout) if each.exit_code in (0, 1) else None
        for each in (check, dump)
    ]
    errors = check.stderr + dump.stderr
    return Said(check.exit_code, parsed[0], dump.exit_code, parsed[1], errors)


def cut_power(
    seed: int,
    lives: int,
    segments: int,
    cases: int,
    tmp_path: Path,
    logs: Logs,
    as_device: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cuts]:
    """So many lives of an instance, so many segments written in each, then the cases."""
    for path in paths(tmp_path):
        path.write_bytes(bytes(TIER_BYTES))
    as_device(True)
    for life in range(lives):
        Instance(
            monkeypatch, seed * lives + life, geometry=GEOMETRY, directory=tmp_path, logs=logs,
            budget_bytes_per_day=4000 * MIB,
        ).live(segments)  # fmt: skip
    recorded = {path: list(log) for path, log in logs.items()}
    for number, (_path, operations) in enumerate(sorted(recorded.items())):
        truth = Truth()
        truth.learn(operations)
        cuts = Cuts(tmp_path / f"cut{number}", logs, truth, random.Random(seed))
        cuts.cut(operations, cases // len(recorded), as_device)
        yield cuts


def judge_coverage(found: list[Cuts]) -> None:
    for name in (*KINDS, *HOWS):
        assert sum(each.counts[name] for each in found) >= 2, f"too few cuts of kind {name}"
    assert sum(each.torn for each in found) >= 10
    assert any(each.refused for each in found)


def test_a_tier_is_described_rightly_and_taken_after_any_cut(
    tmp_path: Path,
    logs: Logs,
    as_device: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with deadline(300):
        judge_coverage(list(cut_power(1, 2, 20, 64, tmp_path, logs, as_device, monkeypatch)))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 108))
def test_a_tier_is_described_rightly_and_taken_after_thousands_of_cuts(
    seed: int,
    tmp_path: Path,
    logs: Logs,
    as_device: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with deadline(3600):
        judge_coverage(list(cut_power(seed, 4, 40, 1500, tmp_path, logs, as_device, monkeypatch)))
