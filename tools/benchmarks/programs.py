"""The real programs: a compile, a Redis server, a matrix product.

    with PROGRAMS["compile"](quick=False) as program:
        with MemoryCgroup(program.limit_bytes) as group, swap_area(...) as device:
            program.run(group, device)

Owns their sizes and command lines; each comes with a memory limit that is too small for it. Always
holds: what a program computed under swap is compared with what it should be. One that cannot run
here raises BenchError with the reason.
"""

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from cgroup import MemoryCgroup

from benchmarks import bars
from benchmarks.csource import c_file
from benchmarks.host import MIB, BenchError, run
from benchmarks.peers import DISK_DIRECTORY, Device
from benchmarks.redis import benchmark, find_server, redis_server
from benchmarks.swapping import in_group, run_on

JOBS: Final = 8
MATRIX: Final = str(Path(__file__).with_name("matrix.py"))

Figures = Mapping[str, tuple[float, str]]
"""Value and unit by case."""


class Program(NamedTuple):
    limit_bytes: int
    how: str
    run: Callable[[MemoryCgroup, Device], Figures]


@contextmanager
def _compile(*, quick: bool) -> Iterator[Program]:
    files, functions, limit_mib = (12, 40, 80) if quick else (24, 60, 112)
    compiler = ("gcc", "-O2", "-pipe", "-c", "{}", "-o", "{}.o")
    with tempfile.TemporaryDirectory(dir=DISK_DIRECTORY) as directory:
        sources = [Path(directory, f"{number}.c") for number in range(files)]
        for seed, source in enumerate(sources):
            source.write_text(c_file(seed, functions))
        names = Path(directory, "names")
        names.write_text("".join(f"{source}\n" for source in sources))
        command = ("xargs", "--arg-file", str(names), "-P", str(JOBS), "-I{}", *compiler)
        # The first one reads the compiler from disk, into memory that no cgroup of ours pays for.
        run(*(word.replace("{}", str(sources[0])) for word in compiler))
        digests: set[bytes] = set()

        def compile_all(group: MemoryCgroup, device: Device) -> Figures:
            began_s = time.monotonic()
            run_on(device, *in_group(group, *command))
            took_s = time.monotonic() - began_s
            objects = (source.with_name(f"{source.name}.o").read_bytes() for source in sources)
            digests.add(hashlib.sha256(b"".join(objects)).digest())
            if len(digests) > 1:
                raise BenchError("the object files are not those of the other runs")
            return {"compile": (took_s, bars.S)}

        how = f"{files} files of {functions} functions: xargs -P {JOBS} {' '.join(compiler)}"
        yield Program(limit_mib * MIB, how, compile_all)


@contextmanager
def _redis(*, quick: bool) -> Iterator[Program]:
    keys, requests, limit_mib = (250_000, 10_000, 96) if quick else (800_000, 50_000, 256)
    find_server()

    def serve(group: MemoryCgroup, device: Device) -> Figures:
        with redis_server(group, device) as server:
            server.fill(keys)
            gets = benchmark(server, "get", keys, requests)
            # What the next one writes is its own.
            server.verify(keys)
            sets = benchmark(server, "set", keys, requests)
        return {
            "Redis GET": (gets.per_s, bars.PER_S),
            "Redis GET, p99": (gets.p99_ms, bars.MS),
            "Redis SET": (sets.per_s, bars.PER_S),
            "Redis SET, p99": (sets.p99_ms, bars.MS),
        }

    yield Program(limit_mib * MIB, f"{keys} keys, redis-benchmark -n {requests}", serve)


@contextmanager
def _matrix(*, quick: bool) -> Iterator[Program]:
    order, limit_mib = (3072, 96) if quick else (4096, 160)

    def multiply(group: MemoryCgroup, device: Device) -> Figures:
        said = run_on(device, *in_group(group, sys.executable, MATRIX, str(order)))
        return {"matrix product": (float(said), bars.S)}

    yield Program(limit_mib * MIB, f"numpy, {order} x {order}, float64", multiply)


PROGRAMS: Final[dict[str, Callable[..., AbstractContextManager[Program]]]] = {
    "compile": _compile,
    "redis": _redis,
    "matrix": _matrix,
}
