"""Where the pages of the scale benchmark lie."""

from benchmarks.scale import CLUSTER_PAGES, LAYOUTS
from benchmarks.store import CHUNK_PAGES

from vswapfs.units import PAGE_BYTES


def test_pages_of_a_layout_are_apart_and_inside_the_area() -> None:
    for layout in LAYOUTS:
        count = layout.page_count(1)
        offsets = [layout.offset(index) for index in range(count)]
        assert len(set(offsets)) == count
        assert max(offsets) < 1 << 30
        assert not count % CHUNK_PAGES


def test_sparse_reaches_every_cluster() -> None:
    sparse = LAYOUTS[0]
    pages = [sparse.offset(index) // PAGE_BYTES for index in range(sparse.page_count(4))]
    assert (
        len({page // CLUSTER_PAGES for page in pages}) == (4 << 30) // PAGE_BYTES // CLUSTER_PAGES
    )
