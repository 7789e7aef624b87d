"""A numeric job: fills two square matrices, multiplies them, verifies the product.

    python matrix.py ORDER

Prints the seconds that it took.

Always holds: all entries are small whole numbers, so that the product is exact and so is its check,
c x = a (b x), in which one wrong byte anywhere shows.
"""

import sys
import time

import numpy as np

ROWS = 256
"""Filled at a time, so that the random numbers take no memory to speak of."""


def main() -> int:
    order = int(sys.argv[1])
    rng = np.random.default_rng(1)
    began_s = time.monotonic()
    a, b = np.empty((order, order)), np.empty((order, order))
    for matrix in (a, b):
        for row in range(0, order, ROWS):
            matrix[row : row + ROWS] = rng.integers(256, size=(ROWS, order), dtype=np.uint8)
    c = a @ b
    x = rng.integers(1, 256, size=order).astype(float)
    wrong = np.count_nonzero(c @ x != a @ (b @ x))
    if wrong:
        sys.exit(f"matrix: {wrong} rows of the product are wrong")
    print(time.monotonic() - began_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
