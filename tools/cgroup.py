"""A memory cgroup for one workload, so that only it swaps.

Owns a cgroup of its own from `with` to the end of `with`, on a v1 or a v2 hierarchy. Never moves a
process: the workload writes itself into `procs_path` before it allocates anything, because memory
stays charged where it was first touched. Afterwards nothing is left: what still runs in the cgroup
is killed, and the cgroup removed.
"""

import itertools
import os
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

REMOVE_TIMEOUT_S = 10.0

_serial = itertools.count()


class MemoryCgroupError(Exception):
    """The cgroup could not be removed; the message says what is still in it."""


class MemoryCgroupUnavailableError(MemoryCgroupError):
    """No memory controller can be used here; the message says what was probed. Nothing is left."""


class Hierarchy(NamedTuple):
    """A mounted memory controller and the names that its version gives to things."""

    is_v2: bool
    root: Path
    limit_file: str


def find_hierarchy(mounts: str) -> Hierarchy:
    """Find the memory controller in the text of /proc/mounts.

    v1 comes first: a controller is in one hierarchy only, and where v1 has it v2 is just mounted.
    """
    v2_root = None
    for line in mounts.splitlines():
        _, target, fstype, options, *_ = line.split(" ")
        if fstype == "cgroup" and "memory" in options.split(","):
            return Hierarchy(
                is_v2=False,
                root=Path(target),
                limit_file="memory.limit_in_bytes",
            )
        if fstype == "cgroup2":
            v2_root = Path(target)
    if v2_root is None:
        raise MemoryCgroupUnavailableError(
            "no memory cgroup: /proc/mounts has neither cgroup (v1) with memory nor cgroup2"
        )
    controllers = (v2_root / "cgroup.controllers").read_text().split()
    if "memory" not in controllers:
        raise MemoryCgroupUnavailableError(
            f"no memory cgroup: {v2_root}/cgroup.controllers has no memory, only {controllers}"
        )
    return Hierarchy(is_v2=True, root=v2_root, limit_file="memory.max")


class MemoryCgroup:
    """`with MemoryCgroup(limit_bytes) as group:` and hand `group.procs_path` to the workload."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._hierarchy = find_hierarchy(Path("/proc/mounts").read_text())
        self.path = self._hierarchy.root / f"vswapfs-{os.getpid()}-{next(_serial)}"

    @property
    def procs_path(self) -> Path:
        """A process that writes its id (or 0) here is in the cgroup."""
        return self.path / "cgroup.procs"

    def __enter__(self) -> Self:
        hierarchy = self._hierarchy
        try:
            if hierarchy.is_v2:
                (hierarchy.root / "cgroup.subtree_control").write_text("+memory")
            self.path.mkdir()
        except OSError as error:
            raise MemoryCgroupUnavailableError(
                f"no memory cgroup: cannot make one under {hierarchy.root}: {error}"
            ) from error
        try:
            (self.path / hierarchy.limit_file).write_text(str(self.limit_bytes))
            # By default v1 lets it swap without limit, and v2 too unless the parent says otherwise.
            if (self.path / "memory.swap.max").exists():
                (self.path / "memory.swap.max").write_text("max")
        except OSError as error:
            self.path.rmdir()
            raise MemoryCgroupUnavailableError(
                f"no memory cgroup: cannot set a limit in {self.path}: {error}"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill what is still in the cgroup and remove it; raise MemoryCgroupError if it stays."""
        deadline_s = time.monotonic() + REMOVE_TIMEOUT_S
        while True:
            self._kill_all()
            try:
                self.path.rmdir()
            except OSError as failure:  # a killed process takes a moment to leave
                if time.monotonic() > deadline_s:
                    raise MemoryCgroupError(
                        f"{self.path} cannot be removed, processes {self._pids()}: {failure}"
                    ) from failure
                time.sleep(0.01)
            else:
                return

    def set_limit(self, limit_bytes: int) -> None:
        """Another limit, from now on."""
        (self.path / self._hierarchy.limit_file).write_text(str(limit_bytes))

    def _pids(self) -> list[int]:
        return [int(line) for line in self.procs_path.read_text().split()]

    def _kill_all(self) -> None:
        for pid in self._pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself
