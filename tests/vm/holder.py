"""In a guest: holds memory whose every byte is known, and counts as long as it runs.

`holder.py SIZE_MIB [touch]` fills its memory, half of each page random, and then counts in
`/run/holder.count`. When `/run/holder.verify` is there it compares every byte, prints what it
found and ends. With `touch` it reads and writes pages at random all the time.
"""

import mmap
import random
import sys
import time
from pathlib import Path

PAGE = 4096
COUNT, VERIFY = Path("/run/holder.count"), Path("/run/holder.verify")
RANDOM = random.Random(1).randbytes(1 << 20)


def page_of(number: int) -> bytes:
    """Compresses to a little more than half."""
    at = number * 1021 % (len(RANDOM) - 2048)
    return RANDOM[at : at + 2048] + number.to_bytes(8, "little") * 256


def main() -> None:
    pages = int(sys.argv[1]) << 8
    memory = mmap.mmap(-1, pages * PAGE)
    for number in range(pages):
        memory[number * PAGE : (number + 1) * PAGE] = page_of(number)
    numbers = random.Random(2)
    count = 0
    while not VERIFY.exists():
        count += 1
        COUNT.write_text(str(count))
        if "touch" in sys.argv:
            for _ in range(64):
                number = numbers.randrange(pages)
                memory[number * PAGE : (number + 1) * PAGE] = page_of(number)
        time.sleep(0.01)
    bad = [
        number
        for number in range(pages)
        if memory[number * PAGE : (number + 1) * PAGE] != page_of(number)
    ]
    print(f"{len(bad)} of {pages} pages are wrong: {bad[:5]}" if bad else f"all {pages} are right")


if __name__ == "__main__":
    main()
