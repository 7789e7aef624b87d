"""Power cuts of a guest that swaps: what is left on its tiers, told rightly, and taken again?

Owns one guest, and one instance on this machine which takes what the cuts left. Prints what it did
and ends with 1 if anything is not as it has to be. Two kinds of cut: QEMU is killed, and the guest
boots again on the same disks; and, out of the log of what the guest told its disks before it was
killed, the media that a cut at any earlier moment could have left. docs/testing.md.
"""

import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from click.testing import CliRunner, Result
from cut_log import KINDS, MIB, Operation, QemuLog
from cut_media import WHOLE, CutMedium, choose_cuts
from cut_truth import COPIES, Said, Truth, holds_at, judge, judge_taken, label_in, may_take
from guest import Guest, GuestError, GuestGoneError, Running
from guest.qemu import DEFAULT_KERNEL
from powercut_load import FILE_SYSTEM, NAME, TIERS
from xxhash import xxh3_64_intdigest

from vswapfs.ctl.cli import cli
from vswapfs.format.tier import SUPERBLOCK_BYTES

TIER_DISKS: Final = (0, 1)
DISKS: Final = (32 * MIB, 24 * MIB, 64 * MIB)
POLL_S: Final = 0.02
WAIT_MAX_S: Final = 1200.0
REFUSED: Final = 3
INTERNAL: Final = 1


class StoppedError(BaseException):
    """By a signal. No KeyboardInterrupt: a command that runs in this process would take it."""


def stop(number: int, _frame: object) -> None:
    raise StoppedError(signal.Signals(number).name)


@dataclass
class Outcome:
    """What was done, and what went wrong."""

    kills: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    described: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def tell(self, text: str) -> None:
        click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)

    def fault(self, where: str, faults: list[str]) -> None:
        for each in faults:
            self.faults.append(f"{where}: {each}"[:700])
            self.tell(f"WRONG {self.faults[-1]}")

    def describe(self, said: Said) -> None:
        if said.check is None:
            self.described["no superblock"] += 1
            return
        self.described["tiers"] += 1
        for key in ("empty", "segments", "damaged", "records"):
            self.described[key] += said.check[key]
        self.described["findings in superblocks"] += sum(
            each["slot"] is None for each in said.check["findings"]
        )

    def print(self) -> None:
        print(f"killed       {self.kills.total()}: {_told(self.kills)}")
        print(f"out of logs  {self.cuts.total()}: {_told(self.cuts)}")
        print(f"log check    {_told(self.described)}")
        print(f"went wrong   {len(self.faults)}")
        for fault in self.faults:
            print(f"  {fault}")


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def vswapctl(*words: str) -> Result:
    result = CliRunner().invoke(cli, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def look(path: str | Path) -> Said:
    """What is said of a tier at rest."""
    results = (
        vswapctl("log", "check", str(path), "--json"),
        vswapctl("log", "dump", str(path), "--records", "--json"),
    )
    parsed: list[dict[str, Any] | None] = [
        json.loads(each.stdout) if each.exit_code in (0, 1) else None for each in results
    ]
    errors = "".join(each.stderr for each in results)
    return Said(results[0].exit_code, parsed[0], results[1].exit_code, parsed[1], errors)


# -- the guest ----------------------------------------------------------------------------------


class Disk:
    """A tier of the guest's: what was there at the boot, and all that was ever written to it."""

    def __init__(self, guest: Guest, number: int) -> None:
        self.path = guest.disk(number)
        self.file = guest.disk_file(number)
        self._log = guest.write_log(number)
        self.truth = Truth()
        self.before = b""
        self.said: Said | None = None
        """Of what the last kill left."""
        self.may_take = True

    def boot(self) -> None:
        self.before = self.file.read_bytes()

    def operations(self) -> list[Operation]:
        log = QemuLog(self._log)
        log.read_on()
        return log.operations

    def cut(self, outcome: Outcome, where: str) -> list[Operation]:
        """QEMU was killed: judge what is there."""
        operations = self.operations()
        self.truth.learn(operations)
        image = self.file.read_bytes()
        medium = CutMedium(self.before, operations)
        medium.advance(len(operations))
        replayed = medium.image(WHOLE, random.Random())
        # A write is in the log once it was done: what was under way is on the disk, but not there.
        unknown = {at // MIB - 1 for at in range(MIB, len(image), MIB)
                   if image[at : at + MIB] != replayed[at : at + MIB]}  # fmt: skip
        for at in COPIES:
            block = image[at : at + SUPERBLOCK_BYTES]
            if block != replayed[at : at + SUPERBLOCK_BYTES] and _is_superblock(block):
                self.truth.superblocks.add(block)
        self.said = look(self.file)
        outcome.describe(self.said)
        outcome.fault(where, judge(image, self.truth, self.said, frozenset(unknown)))
        self.may_take = may_take(image, self.truth)
        return operations


def _is_superblock(block: bytes) -> bool:
    return int.from_bytes(block[-8:], "little") == xxh3_64_intdigest(block[:-8])


class Lines:
    """What powercut_load.py prints."""

    def __init__(self) -> None:
        self._pending = b""
        self.told: list[dict[str, Any]] = []

    def __call__(self, name: str, data: bytes) -> None:
        if name == "stdout":
            *lines, self._pending = (self._pending + data).split(b"\n")
            self.told += map(json.loads, lines)
        else:
            sys.stderr.buffer.write(data)

    def of(self, *words: str) -> list[dict[str, Any]]:
        return [each for each in self.told if tuple(each["words"][: len(words)]) == words]


def judge_boot(disks: list[Disk], lines: Lines) -> Iterator[str]:
    """Whether a boot after a cut said of the tiers what is there, and took them."""
    for disk in disks:
        (line,) = lines.of("log", "check", disk.path)
        assert disk.said
        check = json.loads(line["out"]) if line["exit"] in (0, 1) else None
        for each in filter(None, (check, disk.said.check)):
            each["path"] = disk.path
        if (line["exit"], check) != (disk.said.check_exit, disk.said.check):
            yield f"log check {disk.path} after the boot: {line}, before it: {disk.said.check}"
    for line in lines.of("log", "check"):
        if line["exit"] not in (0, 1, 6) or (line["exit"] == INTERNAL and not line["out"]):
            yield f"{line}"
    first, *more = lines.of("on")
    taken = [word for word in first["words"] if word.startswith("--tier=")]
    may = all(disk.may_take for disk in disks if any(disk.path in word for word in taken))
    has_file = any(word.startswith("--tier=/mnt") for word in taken)
    if first["exit"] not in (0, REFUSED) or (first["exit"] == REFUSED and may and not has_file):
        yield f"{first}"
    if first["exit"] == REFUSED and (not more or more[0]["exit"]):
        yield f"not taken with its remedy: {first}, {more[:1]}"
    if first["exit"] == 0 and not may:
        yield f"taken, and it may be somebody's: {first}"


def judge_work(lines: Lines) -> Iterator[str]:
    """Commands end with the exit codes that they have in the documents."""
    for line in lines.told:
        if line["exit"] not in (0, REFUSED) and line["words"][0] != "log":
            yield f"{line}"


def wait_for(guest: Guest, rng: random.Random, kind: str, within_s: float) -> str:
    """Until something was written of that kind, or for a while; says which."""
    logs = [QemuLog(guest.write_log(number)) for number in TIER_DISKS]
    for log in logs:
        log.read_on()
    began_s = time.monotonic()
    count = rng.randrange(1, 4)
    until_s = None
    while time.monotonic() - began_s < WAIT_MAX_S:
        guest.listen(POLL_S)
        new = [each for log in logs for each in log.read_on()]
        if kind == "time":
            if new and until_s is None:
                until_s = time.monotonic() + rng.uniform(0, within_s)
            if until_s is not None and time.monotonic() > until_s:
                return kind
        else:
            count -= sum(each.kind == kind for each in new)
            if count <= 0:
                return kind
    return "late"


# -- cuts out of the log ------------------------------------------------------------------------


@contextlib.contextmanager
def loop_device(path: Path) -> Iterator[str]:
    made = subprocess.run(
        ["losetup", "--find", "--show", path], capture_output=True, text=True, check=True
    )
    try:
        yield made.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def judge_log(disk: Disk, operations: list[Operation], count: int, rng: random.Random,
              outcome: Outcome, path: Path) -> None:  # fmt: skip
    """Cuts at earlier moments of a boot, each examined by this machine."""
    held = holds_at(operations, before=label_in(disk.before, disk.truth) is not None)
    media = [CutMedium(disk.before, operations, trims_zero=zero) for zero in (False, True)]
    for position, how in choose_cuts(operations, count, rng):
        medium = rng.choice(media)
        medium.advance(position)
        image = medium.image(how, rng)
        kind = operations[position - 1].kind
        outcome.cuts[f"{kind} {how}"] += 1
        path.write_bytes(image)
        where = f"{disk.path} cut behind operation {position}, {kind}, {how}"
        with loop_device(path) as device:
            said = look(device)
            outcome.describe(said)
            faults = judge(image, disk.truth, said)
            if held[position] and label_in(image, disk.truth) is None:
                faults.append("no superblock is whole")
            outcome.fault(where, faults + take(device, path, image, disk.truth, outcome, rng))


def take(device: str, path: Path, image: bytearray, truth: Truth, outcome: Outcome,
         rng: random.Random) -> list[str]:  # fmt: skip
    """`on` with this tier, now and then overwriting it, by the error's remedy if it is refused; and
    `off`."""
    words = ["on", NAME, "--size", "64M", "--pool-limit", "16M", f"--tier={device}:{len(image)}"]
    may = may_take(image, truth)
    if is_forced := may and rng.random() < 0.25:
        words.append("--tier-overwrite")
    try:
        done = vswapctl(*words)
        if (done.exit_code == 0) != may:
            return [f"on ended with {done.exit_code} {done.stderr}, to be taken: {may}"]
        with_option = " with --tier-overwrite" if is_forced else ""
        outcome.described[f"taken{with_option}" if may else "refused"] += 1
        if not may:
            if done.exit_code != REFUSED or "--tier-overwrite" not in done.stderr:
                return [f"on refused: {done.exit_code} {done.stderr}"]
            if path.read_bytes() != image:
                return ["on refused the tier and changed it"]
            done = vswapctl(*words, "--tier-overwrite")
            if done.exit_code:
                return [f"on --tier-overwrite: {done.exit_code} {done.stderr}"]
        down = vswapctl("off", NAME)
        if down.exit_code:
            return [f"off: {down.exit_code} {down.stderr}"]
    finally:
        vswapctl("off", NAME, "--force")
    faults = judge_taken(image, path.read_bytes(), truth)
    said = look(device)
    if said.check_exit or said.check is None or said.check["segments"]:
        faults.append(f"after on and off: {said}"[:400])
    return faults


# -- the command --------------------------------------------------------------------------------


@click.command()
@click.option("--kernel", default=DEFAULT_KERNEL, show_default=True)
@click.option("--kills", type=click.IntRange(1), default=20, show_default=True)
@click.option(
    "--cuts", type=click.IntRange(0), default=12, show_default=True,
    help="For each kill, out of the log of that boot.",
)  # fmt: skip
@click.option(
    "--within", "within_s", type=click.FloatRange(0), default=60.0, show_default=True,
    help="Seconds from the first write in which a kill at a random moment comes.",
)  # fmt: skip
@click.option("--seed", default=1, show_default=True)
def main(kernel: str, kills: int, cuts: int, within_s: float, seed: int) -> None:
    """Kill a guest that swaps, at random moments and at every kind of write to its tiers.

    After each kill, `log check` has to describe the tiers rightly, here and after the next boot,
    and `on` has to take them. The same for cuts at other moments, and with writes torn, lost and
    reordered, out of the log of what the guest wrote: here, through a loop device.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    outcome = Outcome()
    try:
        with tempfile.TemporaryDirectory(prefix="vswapfs-powercut-", dir="/var/tmp") as name:
            cut_power(Path(name), kernel, kills, cuts, within_s, random.Random(seed), outcome)
    except GuestError as error:
        outcome.fault("the guest", [str(error)])
    except StoppedError as error:
        outcome.fault("this run", [f"stopped by {error}"])
    finally:
        outcome.print()
    sys.exit(bool(outcome.faults))


def cut_power(directory: Path, kernel: str, kills: int, cuts: int, within_s: float,
              rng: random.Random, outcome: Outcome) -> None:  # fmt: skip
    assert list(TIERS)[:2] == ["/dev/vdd", "/dev/vde"]
    assert FILE_SYSTEM == "/dev/vdf"
    with (directory / "disk2").open("wb") as file:
        file.truncate(DISKS[2])
    subprocess.run(["mkfs.ext4", "-q", "-F", directory / "disk2"], check=True)
    with Guest(kernel, disks=DISKS, directory=directory, log_writes=True) as guest:
        disks = [Disk(guest, number) for number in TIER_DISKS]
        kinds = [each for kind in KINDS for each in ("time", kind)]
        for number in range(kills + 1):
            if number:
                guest.boot()
            for disk in disks:
                disk.boot()
            lines = Lines()
            kind = kinds[number % len(kinds)]
            words = ["python", "tools/powercut_load.py", str(rng.randrange(1 << 30)), kind]
            load = guest.start(words, timeout_s=3600, echo=lines)
            wait_until_taken(guest, lines, load)
            if number:
                outcome.fault(f"boot {number}", [*judge_boot(disks, lines)])
            if number == kills:
                return
            reason = wait_for(guest, rng, kind, within_s)
            guest.power_cut()
            with contextlib.suppress(GuestGoneError):
                load.wait()
            outcome.fault(f"boot {number}", [*judge_work(lines)])
            where = f"kill {number + 1} ({reason})"
            outcome.kills[reason] += 1
            logs = [disk.cut(outcome, where) for disk in disks]
            written = Counter(each.kind for log in logs for each in log)
            outcome.tell(f"{where}: {_told(written)}; {len(lines.told)} commands")
            used = [(disk, log) for disk, log in zip(disks, logs, strict=True) if log]
            for disk, log in used:
                judge_log(disk, log, cuts // len(used), rng, outcome, directory / "cut")


def wait_until_taken(guest: Guest, lines: Lines, load: Running) -> None:
    deadline_s = time.monotonic() + WAIT_MAX_S
    while not any(line["exit"] == 0 for line in lines.of("on")):
        if time.monotonic() > deadline_s or load.result:
            raise GuestError(f"the tiers were not taken: {lines.told} {load.result}")
        guest.listen(0.5)


if __name__ == "__main__":
    main()
