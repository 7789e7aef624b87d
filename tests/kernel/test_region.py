"""The daemon's own memory is never swapped, to itself at that."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cgroup import MemoryCgroup
from machine import swap_instance

MIB = 1 << 20

# A pool of which parts were given back, in a process that locks its memory. With huge pages this
# failed: giving back a part splits one, and the rest is not locked until it is touched again.
HOLDER = """
import sys
from pathlib import Path
from vswapfs.host.hardening import lock_memory
from vswapfs.host.region import MemoryRegion, memory_file
Path(sys.argv[1]).write_text("0")
assert lock_memory().ok
region = MemoryRegion(memory_file("test-pool", 64 << 20), 64 << 20)
for at in range(0, 64 << 20, 4096):
    region.view[at] = 1
for at in range(0, 64 << 20, 2 << 20):
    region.release(at, at + (1 << 20))
for at in range(0, 32 << 20, 2 << 20):
    region.take(at, at + (1 << 20))  # nobody touches it
print("touched", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def touched(script: str, group: MemoryCgroup) -> Iterator[subprocess.Popen[str]]:
    """A process in the cgroup that has touched its memory."""
    command = [sys.executable, "-c", script, str(group.procs_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "touched\n"
            yield holder
        finally:
            holder.kill()


def test_no_page_of_a_region_is_swapped_out_under_pressure() -> None:
    with (
        swap_instance("tregion", "--size", "256M"),
        MemoryCgroup(256 * MIB) as group,
        touched(HOLDER, group) as holder,
    ):
        with contextlib.suppress(OSError):  # what cannot be swapped out cannot be limited
            group.set_limit(24 * MIB)
        smaps = Path(f"/proc/{holder.pid}/smaps").read_text()
        found = re.search(r"(?ms)memfd:test-pool .*?^Rss: +(\d+) kB.*?^Swap: +(\d+) kB", smaps)
        assert found
        assert int(found[2]) == 0


# Memory of a process that is swapped out before the process locks it.
LATE = """
import sys
from pathlib import Path
from vswapfs.host.hardening import lock_memory
Path(sys.argv[1]).write_text("0")
held = bytearray(b"x") * (32 << 20)
print("touched", flush=True)
sys.stdin.readline()
assert lock_memory().ok
print("locked", flush=True)
sys.stdin.readline()
"""


def swapped_kib(pid: int) -> int:
    found = re.search(r"VmSwap:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def test_what_was_swapped_out_before_it_was_locked_comes_back() -> None:
    with (
        swap_instance("tregion", "--size", "256M"),
        MemoryCgroup(256 * MIB) as group,
        touched(LATE, group) as holder,
    ):
        assert holder.stdin
        assert holder.stdout
        group.set_limit(16 * MIB)
        assert swapped_kib(holder.pid) > 8 << 10
        group.set_limit(256 * MIB)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "locked\n"
        assert swapped_kib(holder.pid) == 0
