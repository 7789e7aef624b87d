"""The list of lost pages, which is bounded, and long answers."""

from typing import cast

import pytest
from regions import make_buffers

from vswapfs.core.buffers import Geometry
from vswapfs.core.store import Store
from vswapfs.daemon.control import send_list
from vswapfs.format import message
from vswapfs.fuse import lost
from vswapfs.units import PAGE_BYTES

GEOMETRY = Geometry(1024, 8, 1 << 16)


def test_pages_that_were_stored_again_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost, "LOST_PAGES_MAX", 3)
    store = Store(GEOMETRY, make_buffers(GEOMETRY))
    pages = lost.LostPages(store)
    store.store(0, bytes(5 * PAGE_BYTES))
    for page in range(4):
        pages.remember(page, "why")
    assert list(pages.still()) == [0, 1, 2]
    store.discard(1, 1)
    pages.remember(4, "why")
    assert list(pages.still()) == [0, 2, 4]
    assert len(pages.reasons) == 3


@pytest.mark.trio
async def test_lines_of_a_list_are_never_too_long() -> None:
    """10 000 lost pages are 1.3 MB."""
    sent: list[message.Answer] = []

    async def send(answer: message.Answer) -> None:
        sent.append(answer)

    entries = [message.LostPage(n << 12, "x" * 4200) for n in range(250)]
    await send_list(send, message.Lost, entries)
    assert all(len(message.encode(line)) < message.LINE_MAX_BYTES for line in sent)
    assert [page for line in sent for page in cast("message.Lost", line).pages] == entries
    sent.clear()
    await send_list(send, message.Lost, [])
    assert sent == []
