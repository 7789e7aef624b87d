"""The file system that pyfuse3 serves: a directory with the swap file and a file of statistics.

Owns names, inode numbers, attributes, open and statfs. Never answers page I/O: the lane does, and
nothing of it arrives here. Always holds: a handler raises FUSEError and nothing else (an exception
that escapes a handler would end pyfuse3's main loop).
"""

import errno
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar

import pyfuse3

from vswapfs.format.instance import SWAP_FILE
from vswapfs.units import PAGE_BYTES

SWAP_INODE: Final = 2
_STATS_INODE: Final = 3
_STATS_FILE: Final = b"stats.json"
_CACHE_S: Final = 3600.0

_log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _guarded(
    handler: Callable[_P, Coroutine[Any, Any, _R]],
) -> Callable[_P, Coroutine[Any, Any, _R]]:
    """Turn any defect of a handler into EIO for its request, counted and logged."""

    async def guard(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await handler(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception:
            namespace = args[0]
            assert isinstance(namespace, Namespace)
            namespace.internal_errors += 1
            _log.exception("internal error in the handler %s", handler.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return guard


class Namespace(pyfuse3.Operations):
    """Root, ``swap`` and ``stats.json``; everything belongs to root and cannot be changed.

    ``read_stats`` returns the bytes of stats.json; it is called once at each open.
    """

    def __init__(self, size_bytes: int, read_stats: Callable[[], Awaitable[bytes]]) -> None:
        super().__init__()
        self.internal_errors = 0
        self._size_bytes = size_bytes
        self._read_stats = read_stats
        self._born_ns = time.time_ns()
        self._opened: dict[int, bytes] = {}
        self._next_handle = 1
        self._names = {SWAP_FILE.encode(): SWAP_INODE, _STATS_FILE: _STATS_INODE}

    def _attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        if inode == pyfuse3.ROOT_INODE:
            entry.st_mode, entry.st_nlink, entry.st_size = stat.S_IFDIR | 0o500, 2, 0
        elif inode == SWAP_INODE:
            entry.st_mode, entry.st_nlink, entry.st_size = stat.S_IFREG | 0o600, 1, self._size_bytes
        elif inode == _STATS_INODE:
            # Size 0, as in /proc: its length is known only when it is opened.
            entry.st_mode, entry.st_nlink, entry.st_size = stat.S_IFREG | 0o400, 1, 0
        else:
            raise pyfuse3.FUSEError(errno.ENOENT)
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_uid = entry.st_gid = entry.st_rdev = 0
        entry.st_blksize = PAGE_BYTES
        entry.st_blocks = entry.st_size // 512
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._born_ns
        entry.generation = 0
        entry.attr_timeout = entry.entry_timeout = _CACHE_S
        return entry

    @_guarded
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if parent_inode != pyfuse3.ROOT_INODE:
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        if name == b".":
            return self._attributes(pyfuse3.ROOT_INODE)
        if name not in self._names:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(self._names[name])

    @_guarded
    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._attributes(inode)

    @_guarded
    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        # Times may be "set" (touch, dd); size, mode and owner are what they are.
        if fields.update_size and attr.st_size == self._attributes(inode).st_size:
            return self._attributes(inode)
        if fields.update_size or fields.update_mode or fields.update_uid or fields.update_gid:
            raise pyfuse3.FUSEError(errno.EPERM)
        return self._attributes(inode)

    @_guarded
    async def open(
        self, inode: pyfuse3.InodeT, flags: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        handle = self._next_handle
        self._next_handle += 1
        if inode == _STATS_INODE:
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise pyfuse3.FUSEError(errno.EACCES)
            self._opened[handle] = await self._read_stats()
        # Direct I/O: the page cache above us would keep a second copy of every page.
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle), direct_io=True)

    @_guarded
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        if fh not in self._opened:
            raise pyfuse3.FUSEError(errno.EBADF)
        return self._opened[fh][off : off + size]

    @_guarded
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        self._opened.pop(fh, None)

    @_guarded
    async def opendir(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileHandleT:
        if inode != pyfuse3.ROOT_INODE:
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        return pyfuse3.FileHandleT(0)

    @_guarded
    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        for index, (name, inode) in enumerate(self._names.items(), 1):
            if index > start_id and not pyfuse3.readdir_reply(
                token, pyfuse3.FileNameT(name), self._attributes(inode), index
            ):
                return

    @_guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        # The loop driver asks: without an answer it offers no discard.
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = PAGE_BYTES
        data.f_blocks = self._size_bytes // PAGE_BYTES
        data.f_bfree = data.f_bavail = 0
        data.f_files = len(self._names) + 1
        data.f_ffree = data.f_favail = 0
        data.f_namemax = 255
        return data

    @_guarded
    async def forget(self, inode_list: Any) -> None:
        """Inodes are fixed; nothing to forget."""
