"""Requests that begin or end within a page: load, change, store.

Owns that arithmetic. The kernel swaps whole pages; other programs that write to the file do not.
Raises what load and store raise; where a page of several was done before that, it stays done.
"""

from typing import Final

from vswapfs.core.store import Store
from vswapfs.units import PAGE_BYTES, PAGE_SHIFT

_PAGE_MASK: Final = PAGE_BYTES - 1


def whole_pages(store: Store, offset: int, data: memoryview) -> memoryview:
    """The data to be written at ``offset``, with the rest of its first and last page around it."""
    before_bytes, after_bytes = offset & _PAGE_MASK, -(offset + len(data)) & _PAGE_MASK
    found: list[bytes | memoryview] = [data]
    if before_bytes:
        found.insert(0, store.load(offset >> PAGE_SHIFT)[:before_bytes])
    if after_bytes:
        last = store.load(offset + len(data) - 1 >> PAGE_SHIFT)
        found.append(last[-after_bytes:])
    return memoryview(b"".join(found))


def zero(store: Store, start: int, end: int) -> None:
    """Make the bytes [start, end) zero; pages that are in it whole become empty."""
    first, stop = start + _PAGE_MASK >> PAGE_SHIFT, end >> PAGE_SHIFT
    if first <= stop:
        if start & _PAGE_MASK:
            _zero_in_page(store, first - 1, start & _PAGE_MASK, PAGE_BYTES)
        store.discard(first, stop - first)
        if end & _PAGE_MASK:
            _zero_in_page(store, stop, 0, end & _PAGE_MASK)
    elif start < end:
        _zero_in_page(store, stop, start & _PAGE_MASK, end & _PAGE_MASK)


def _zero_in_page(store: Store, page: int, start: int, end: int) -> None:
    old = store.load(page)
    store.store(page, old[:start] + bytes(end - start) + old[end:])
