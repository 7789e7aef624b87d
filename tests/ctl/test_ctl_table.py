"""The table's columns against a look at each descriptor by itself."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from vswapfs.core.descriptor import CLUSTER_PAGES, KIND_MASK, STORED, filled, place, stored
from vswapfs.ctl import columns
from vswapfs.ctl.table import DAMAGED, DISK, EMPTY, POOL, SAME, ZERO, Table
from vswapfs.format.chunk import PLAIN_CHUNK_BYTES
from vswapfs.format.table import Area, Segment, Words

ON_TIER, IN_RAM, OPENED_MEANWHILE = 3, 5, 0xFFF_FFFF
SEGMENTS = {
    number: Segment(number, False, 0, tier, 0, 0, 0, 0, number, 0)
    for number, tier in ((ON_TIER, 1), (IN_RAM, 0))
}

words = st.one_of(
    st.just(0),
    st.builds(filled, st.one_of(st.just(0), st.integers(1, (1 << 40) - 1))),
    st.builds(
        stored,
        st.sampled_from((ON_TIER, IN_RAM, OPENED_MEANWHILE)),
        st.integers(0, (1 << 20) - 1),
        st.integers(1, (1 << 13) - 1),
    ),
    st.integers(0, (1 << 64) - 1),  # damage
)


def state_of(word: int) -> int:
    if not word:
        return EMPTY
    if word & KIND_MASK == 1:
        return SAME if word >> 3 else ZERO
    if word & KIND_MASK != STORED:
        return DAMAGED
    return DISK if place(word).segment == ON_TIER else POOL


@given(st.lists(words, max_size=40), st.booleans())
def test_states_and_lengths_are_those_of_each_word(found: list[int], has_tiers: bool) -> None:
    table = Table(Area(3 * CLUSTER_PAGES - 9, 1 << 20, 8, [], PLAIN_CHUNK_BYTES))
    if has_tiers:
        table.segments = SEGMENTS
    padded = found + [0] * (CLUSTER_PAGES - len(found))
    other = [filled(7)] * CLUSTER_PAGES
    table.take(Words([2, 0], array("Q", padded + other).tobytes()))
    states, lengths = table.states[2 * CLUSTER_PAGES :], table.stored_bytes[2 * CLUSTER_PAGES :]
    for word, state, length in zip(padded, states, lengths, strict=True):
        expected = state_of(word)
        assert state == (POOL if expected == DISK and not has_tiers else expected)
        assert length == (place(word).length_bytes if word & KIND_MASK == STORED else 0)
    assert table.words[2].tolist() == padded
    assert set(table.states[:CLUSTER_PAGES]) == {SAME}
    assert set(table.states[CLUSTER_PAGES : 2 * CLUSTER_PAGES]) == {EMPTY}


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255))))
def test_bytes_by_bytes(pairs: list[tuple[int, int]]) -> None:
    first, second = bytes(a for a, _ in pairs), bytes(b for _, b in pairs)
    assert columns.both(first, second) == bytes(a & b for a, b in pairs)
    assert columns.without(first, second) == bytes(a & ~b for a, b in pairs)
    assert columns.any_of([first, second]) == bytes(a | b for a, b in pairs)


@given(st.lists(st.integers(0, (1 << 64) - 1)), st.integers(0, 63), st.integers(1, 64))
def test_a_field_of_each_number(numbers: list[int], shift: int, bits: int) -> None:
    mask = (1 << min(bits, 64 - shift)) - 1
    expected = [number >> shift & mask for number in numbers]
    assert columns.field(array("Q", numbers), shift, mask).tolist() == expected
