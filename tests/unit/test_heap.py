"""Memory in hand for the interpreter itself (host/hardening.py)."""

import subprocess
import sys

ALLOCATE = """
import resource
from vswapfs.host import hardening

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

hardening.keep_heap()
{fill}
small = [None] * 2000
before = faults()
for at in range(2000):
    small[at] = bytes(350)
large = bytearray(400 << 10)
print(faults() - before)
del small, large
before = faults()
small = [bytes(350) for _ in range(2000)]
print(faults() - before)
"""


def faults(fill: str) -> list[int]:
    words = [sys.executable, "-c", ALLOCATE.format(fill=fill)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
    return [int(line) for line in said.split()]


def test_objects_to_come_find_their_memory_there() -> None:
    at_first, later = faults("hardening.fill_heap()")
    assert at_first < 20
    assert later < 20


def test_without_it_they_take_memory_page_by_page() -> None:
    at_first, _later = faults("")
    assert at_first > 100
