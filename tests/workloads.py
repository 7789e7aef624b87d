"""The known workload in a memory cgroup, and sampling an instance meanwhile."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from cgroup import MemoryCgroup, MemoryCgroupUnavailableError
from machine import ROOT, Instance, missing

WORKLOAD_TIMEOUT_S = 400
HEADS_BYTES = 3 << 20


class Peak(threading.Thread):
    """Samples an instance's statistics until stopped; keeps the largest of each figure."""

    def __init__(self, instance: Instance) -> None:
        super().__init__()
        self._instance = instance
        self._stopped = threading.Event()
        self.most = dict.fromkeys(
            ("live_bytes", "used_bytes", "resident_bytes", "pages_in_pool", "pages_on_disk"), 0
        )
        self.over_limit: list[dict[str, Any]] = []

    def run(self) -> None:
        while not self._stopped.wait(0.3):
            stats = self._instance.stats()
            pool = stats["pool"]
            pool["pages_in_pool"] = stats["pages"]["pool"]
            pool["pages_on_disk"] = stats["pages"]["disk"]
            pool["resident_bytes"] = self._instance.resident_bytes("pool")
            for key in self.most:
                self.most[key] = max(self.most[key], pool[key])
            if pool["resident_bytes"] > pool["limit_bytes"] + HEADS_BYTES:
                self.over_limit.append(pool)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


@contextlib.contextmanager
def held_memory(limit: int, size: str, mix: str) -> Iterator[tuple[MemoryCgroup, Any]]:
    """A process that has filled so much memory, more than its cgroup's limit, and sits still."""
    command = [
        sys.executable, str(ROOT / "tools/workload.py"), "--size", size, "--mix", mix, "--json",
        "--hold",
    ]  # fmt: skip
    try:
        with MemoryCgroup(limit) as group:
            command += ["--cgroup-procs", str(group.procs_path)]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as process:
                try:
                    assert process.stdout
                    assert any('"hold"' in line for line in process.stdout)
                    yield group, process
                finally:
                    process.kill()
    except MemoryCgroupUnavailableError as error:
        missing(str(error))


def workload(limit: int, size: str, mix: str, touches: int) -> dict[str, Any]:
    """Run the workload in a memory cgroup of its own; returns its result, with its exit status."""
    try:
        with MemoryCgroup(limit) as group:
            done = subprocess.run(
                [
                    sys.executable, ROOT / "tools/workload.py", "--size", size, "--mix", mix,
                    "--seed", "7", "--touches", str(touches), "--json",
                    "--cgroup-procs", group.procs_path,
                ],
                capture_output=True, text=True, timeout=WORKLOAD_TIMEOUT_S, check=False,
            )  # fmt: skip
    except MemoryCgroupUnavailableError as error:
        missing(str(error))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])["result"]
    assert isinstance(result, dict)
    return result
