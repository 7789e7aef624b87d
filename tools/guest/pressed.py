"""A guest whose memory is too small for what runs in it: started from outside, judged from outside.

Owns what is asked of a guest and what its silence means: a guest that hangs cannot say so. What
runs inside is `tools/pressure.py`.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from guest.errors import GuestGoneError, GuestTimeoutError
from guest.qemu import Guest

_AROUND_S: Final = 240
"""For what is before and after the load: start, check and swapoff."""

_HUNG: Final = re.compile(r"INFO: task (\S+) blocked for more than \d+ seconds")
_PANIC: Final = re.compile(r"Kernel panic - not syncing: (.*)")


class Load(NamedTuple):
    seconds: int = 120
    factor: float = 2.0
    """How much the hogs take, of the machine's memory."""
    hogs: int = 2
    pool_limit: str | None = None
    without: tuple[str, ...] = ()
    kill_every_s: int | None = None
    """The worker, so that another takes over."""

    def command(self, tier: str | None) -> list[str]:
        words = ["python", "tools/pressure.py", "--seconds", str(self.seconds)]
        words += ["--factor", str(self.factor), "--hogs", str(self.hogs)]
        if self.pool_limit:
            words += ["--pool-limit", self.pool_limit]
        if tier:
            words += ["--tier", tier]
        if self.kill_every_s:
            words += ["--kill-every", str(self.kill_every_s)]
        for protection in self.without:
            words += ["--without", protection]
        return words


class Verdict(NamedTuple):
    result: dict[str, Any]
    """What tools/pressure.py counted; empty if it did not come to its end."""
    faults: list[str]


def press(guest: Guest, load: Load, echo: Callable[[str], None]) -> Verdict:
    """Run a load; the guest's first scratch disk, if it has one, is a tier."""
    command = load.command(guest.disk(0) if guest.disk_count else None)
    try:
        done = guest.run(
            command, timeout_s=load.seconds + _AROUND_S, check=False,
            echo=lambda _stream, data: echo(data.decode(errors="replace")),
        )  # fmt: skip
    except (GuestGoneError, GuestTimeoutError) as error:
        return Verdict({}, _why(guest.console.read_text(errors="replace")) or [str(error)])
    lines = done.stdout.splitlines()
    if not lines or not lines[-1].startswith('{"result"'):
        return Verdict({}, [f"tools/pressure.py ended with {done.exit_code}"])
    result = json.loads(lines[-1])["result"]
    return Verdict(result, result["faults"])


def _why(console: str) -> list[str]:
    """What the kernel said last."""
    hung = [f"hung: {task}" for task in dict.fromkeys(_HUNG.findall(console))]
    return [*hung, *(f"panic: {why.strip()}" for why in _PANIC.findall(console))]
