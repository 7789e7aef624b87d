"""Memory in hand: slots of the pool, and descriptors, whose memory is there before a page comes.

Owns the threads that take it. The lane must never wait for memory: the machine may have none until
the lane has taken a page, and whoever reclaims may be waiting for just that. So the lane takes a
slot that is warm and a cluster whose descriptors have memory, or one for which the machine has
memory to spare; else the store is refused (ENOSPC), the kernel keeps the page, and the OOM killer
finds its way. The threads may wait.
"""

import errno
import functools
import logging
import time
from typing import Final

from vswapfs.core.descriptor import CLUSTER_BYTES
from vswapfs.core.store import Store
from vswapfs.daemon.io_threads import IoThreads
from vswapfs.errors import PoolFullError
from vswapfs.fuse.lane import Lane
from vswapfs.host import memory
from vswapfs.host.region import MemoryRegion

IN_HAND_SEGMENTS: Final = 8
IN_HAND_SHARE: Final = 1 / 8
"""Of the pool limit, if that is less."""

CLUSTERS_AHEAD: Final = (1, 32, 64, 96, 128)
"""Clusters that get their descriptors' memory when one is begun. Linux takes the clusters of an
empty area in order (6.1), or every 32nd first (6.12: setup_clusters in mm/swapfile.c), and each
processor has one."""

PIECE_BYTES: Final = 32 << 10
WAIT_S: Final = 0.02
_AMPLE: Final = 4
"""So many times what is to be taken is free: nobody will have taken it meanwhile."""

_THREADS: Final = 2
"""A slot is as much as 256 clusters: it may take that much longer."""

_log = logging.getLogger(__name__)


class Forehand:
    """Called on the lane."""

    def __init__(
        self, store: Store, lane: Lane, pool: MemoryRegion, descriptors: MemoryRegion
    ) -> None:
        self._store = store
        self._lane = lane
        self._pool = pool
        self._descriptors = descriptors
        self._has_descriptors = bytearray(store.geometry.cluster_count)
        """By cluster: whether its descriptors have memory. To ask the kernel is to wait for whoever
        takes some."""
        for start, stop in descriptors.extents():
            first, end = start // CLUSTER_BYTES, stop // CLUSTER_BYTES
            self._has_descriptors[first:end] = b"\1" * (end - first)
        self._clusters: set[int] = set()
        """Whose descriptors get their memory now."""
        self._memory = memory.Watch()
        self._is_stopping = False
        self._ram = store.segments.ram
        self._ram.warm_up = self._warm_up
        store.begin_cluster, store.end_cluster = self._begin_cluster, self._end_cluster
        self._seen = (-1, -1, -1, False)
        self._threads = IoThreads(lane.submit, _THREADS, "memory")

    def start(self) -> None:
        self._threads.start()

    def stop(self) -> None:
        """After the lane has ended."""
        self._is_stopping = True
        self._threads.stop()

    def _bytes_of(self, slot: int) -> tuple[int, int]:
        size = self._store.geometry.segment_bytes
        return slot * size, (slot + 1) * size

    def _warm_up(self, slot: int) -> bool:
        if not self._memory.can_spare_some():
            self._ram.is_starved = True
            return False
        self._pool.populate(*self._bytes_of(slot))
        return True

    def _begin_cluster(self, cluster: int) -> None:
        if not self._has_descriptors[cluster]:
            if not self._memory.can_spare_some():
                self._take_descriptors(cluster)
                raise PoolFullError(
                    "the machine has no memory for descriptors now",
                    remedy="end what takes the memory",
                )
            self._descriptors.populate(*_descriptors_of(cluster))
            self._has_descriptors[cluster] = True
        for ahead in CLUSTERS_AHEAD:
            self._take_descriptors(cluster + ahead)

    def _end_cluster(self, cluster: int) -> None:
        start, stop = _descriptors_of(cluster)
        if self._clusters:
            self._descriptors.clear(start, stop)  # to give it back is to wait for that thread
        else:
            self._descriptors.release(start, stop)
            self._has_descriptors[cluster] = start < self._descriptors.kept_bytes

    def _take_descriptors(self, cluster: int) -> None:
        if (
            cluster < len(self._has_descriptors)
            and not self._has_descriptors[cluster]
            and cluster not in self._clusters
        ):
            self._clusters.add(cluster)
            self._threads.do(
                functools.partial(self._take, self._descriptors, *_descriptors_of(cluster)),
                functools.partial(self._take_ended, cluster),
            )

    def _take_ended(self, cluster: int, _: object, error: BaseException | None) -> None:
        self._clusters.remove(cluster)
        if error is not None:
            _log.warning("memory for descriptors: %s", error)
        else:
            self._has_descriptors[cluster] = True
        self._lane.serve_parked()

    def _take(self, region: MemoryRegion, start: int, stop: int) -> None:
        """On a thread. It waits outside of the kernel, where it would have a lock of all threads:
        one that ended, with the interpreter in its hands, waited 20 s for such a lock."""
        if self._memory.is_free(_AMPLE * (stop - start)):
            region.take(start, stop)
            return
        for at in range(start, stop, PIECE_BYTES):
            while not self._memory.is_free(PIECE_BYTES):
                if self._is_stopping:
                    raise OSError(errno.ECANCELED, "the worker ends")
                time.sleep(WAIT_S)
            region.take(at, min(at + PIECE_BYTES, stop))

    @property
    def is_taking(self) -> bool:
        """Whether a thread is at it; it may wait for long."""
        return self._ram.is_warming or bool(self._clusters)

    def look_again(self) -> None:
        """Stores may be parked until what is being taken is there, and nothing else come that would
        be looked after; and there be no memory before one of them has been answered."""
        if not self._memory.can_spare_some():
            self._ram.is_starved = True
            self._lane.serve_parked()

    def look_after(self) -> None:
        """See to it that enough is in hand. Called often."""
        ram, is_counted = self._ram, self._store.recount is None
        now = (ram.warm_count, ram.used_count, ram.limit, is_counted)
        if now == self._seen:
            return
        self._seen = now
        least = min(IN_HAND_SEGMENTS, int(ram.limit * IN_HAND_SHARE))
        ram.kept_warm = least and self._store.segments.kept_count + least
        if ram.warm_count <= ram.kept_warm // 2:
            ram.is_starved = not self._memory.can_spare_some()
        elif ram.warm_count >= ram.kept_warm:
            ram.is_starved = False
        if is_counted and (slot := ram.begin_warming()) is not None:
            self._threads.do(
                functools.partial(self._take, self._pool, *self._bytes_of(slot)),
                functools.partial(self._warmed, slot),
            )

    def _warmed(self, slot: int, _: object, error: BaseException | None) -> None:
        if error is not None:
            _log.warning("memory for the pool: %s", error)
        self._ram.end_warming(slot, ok=error is None)
        self._lane.serve_parked()  # also to be told that there is none
        if error is None:
            self.look_after()


def _descriptors_of(cluster: int) -> tuple[int, int]:
    return cluster * CLUSTER_BYTES, (cluster + 1) * CLUSTER_BYTES
