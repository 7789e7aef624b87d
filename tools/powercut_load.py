"""In a guest: looks at its tiers after a boot, takes them, and swaps to them until the power goes.

`powercut_load.py SEED KIND` prints a line of JSON for each command: its words, exit code and what
it said. Commands that write what is of that kind to a tier come more often. They run in this
process, because to start one takes seconds under emulation.
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from click.testing import CliRunner, Result

from vswapfs.ctl.cli import cli

NAME: Final = "powercut"
GROUP: Final = Path("/sys/fs/cgroup/load")
FILE_SYSTEM: Final = "/dev/vdf"
FILE: Final = Path("/mnt/tier")
TIERS: Final = {"/dev/vdd": "32M", "/dev/vde": "24M", str(FILE): "24M"}
FIRST: Final = "/dev/vdd"
SWAPPED_KIB: Final = 20 << 10
"""Of which most is on a tier: a page takes half of its bytes, and the pool is small."""
SWAPPED_WITHIN_S: Final = 60.0
OFTEN: Final = {
    "segment": ("writeback",), "trim": ("drain", "writeback"), "copy": ("set",),
    "superblock": ("set",), "clear": ("add", "remove"), "discard": ("add", "remove"),
    "erase": ("add", "remove"),
}  # fmt: skip
AREA: Final = ("--size", "128M", "--pool-limit", "6M", "--write-budget", "10G/day")


def tell(*words: str) -> Result:
    """Run a command; say how it ended."""
    result = CliRunner().invoke(cli, words)
    crash = result.exception
    failed = "" if crash is None or isinstance(crash, SystemExit) else repr(crash)
    print(
        json.dumps(
            {
                "words": words,
                "exit": result.exit_code,
                "out": result.stdout if words[0] == "log" else "",
                "errors": failed or result.stderr[-600:],
            }
        ),
        flush=True,
    )
    return result


def on(*tiers: str) -> bool:
    """Take the tiers as they are, or as the error says."""
    words = [f"--tier={path}:{TIERS[path]}" for path in tiers]
    result = tell("on", NAME, *AREA, *words)
    if result.exit_code and "--tier-overwrite" in result.stderr:
        result = tell("on", NAME, *AREA, *words, "--tier-overwrite")
    return result.exit_code == 0


def swapped_kib() -> int:
    return sum(int(line.split()[3]) for line in Path("/proc/swaps").read_text().splitlines()[1:])


class Load:
    """A workload in a small cgroup, again and again, and commands on tiers beside it."""

    def __init__(self, rng: random.Random, kind: str, tiers: set[str]) -> None:
        self._rng = rng
        self._tiers = tiers
        self._often = OFTEN.get(kind, ())
        GROUP.mkdir(exist_ok=True)
        (GROUP / "memory.high").write_text("24M")
        workload = (
            f"python tools/workload.py --size 56M --touches 2000 --seed {rng.randrange(999)} "
            f"--cgroup-procs {GROUP}/cgroup.procs"
        )
        subprocess.Popen(
            ["bash", "-c", f"while :; do {workload} || echo the workload failed: $? >&2; done"],
            stdout=subprocess.DEVNULL,
        )
        deadline_s = time.monotonic() + SWAPPED_WITHIN_S
        while swapped_kib() < SWAPPED_KIB and time.monotonic() < deadline_s:
            time.sleep(0.1)

    def act(self) -> None:
        rng = self._rng
        weights = {"writeback": 3, "drain": 1, "set": 2, "add": 2, "remove": 2, "again": 0.3}
        weights |= dict.fromkeys(self._often, 20)
        match rng.choices(list(weights), list(weights.values()))[0]:
            case "writeback":
                tell("writeback", NAME, "--all")
            case "drain":
                tell("drain", NAME)
            case "set":
                tell("set", NAME, f"write-budget={rng.randrange(1, 99)}G/day")
            case "add" if missing := sorted(TIERS.keys() - self._tiers):
                path = rng.choice(missing)
                # What an earlier removal was cut at may hold anything.
                if tell("tier", "add", NAME, f"{path}:{TIERS[path]}", "--overwrite").exit_code == 0:
                    self._tiers.add(path)
            case "remove" if len(self._tiers) > 1:
                path = rng.choice(sorted(self._tiers))
                if tell("tier", "remove", NAME, path).exit_code == 0:
                    self._tiers.discard(path)
            case "again":
                if tell("off", NAME).exit_code == 0:
                    on(FIRST)
                    self._tiers = {FIRST}
            case _:
                time.sleep(rng.random())


def main() -> None:
    rng = random.Random(int(sys.argv[1]))
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory")
    subprocess.run(["mount", FILE_SYSTEM, "/mnt"], check=True)
    for path in TIERS:
        if Path(path).exists():
            tell("log", "check", path, "--json")
    # Also what was no tier any more, or not yet.
    there = [path for path in TIERS if path != FIRST and rng.random() < 0.3]
    if not on(FIRST, *there):
        return
    load = Load(rng, sys.argv[2], {FIRST, *there})
    while True:
        load.act()


if __name__ == "__main__":
    main()
