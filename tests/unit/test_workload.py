"""The workload judges every other test, so its own contents and its eye are tested here."""

import random
from functools import cache
from itertools import product

import lz4.block
import pytest
from workload import DEFAULT_MIX, PageContents, Workload, parse_mix

from vswapfs.units import PAGE_BYTES

PAGES = 64


@cache
def contents_of(mix: str, seed: int = 1) -> PageContents:
    return PageContents(seed, parse_mix(mix))


def filled_workload(mix: str = "text:1,random:1") -> Workload:
    workload = Workload(contents_of(mix), PAGES * PAGE_BYTES, lambda *_: None)
    workload.fill()
    return workload


def lz4_ratio(contents: PageContents) -> float:
    pages = [contents.page(number, 0) for number in range(200)]
    stored = sum(len(lz4.block.compress(page, store_size=False)) for page in pages)
    return len(pages) * PAGE_BYTES / stored


def test_contents_depend_on_seed_number_and_version_only() -> None:
    mix = parse_mix(DEFAULT_MIX)
    one, again, other = PageContents(1, mix), PageContents(1, mix), PageContents(2, mix)
    places = list(product(range(500), range(2)))
    pages = [one.page(*place) for place in places]
    assert pages == [again.page(*place) for place in reversed(places)][::-1]
    assert pages != [other.page(*place) for place in places]
    assert {len(page) for page in pages} == {PAGE_BYTES}


@pytest.mark.parametrize("kind", ["text", "random"])
def test_every_page_and_version_is_different(kind: str) -> None:
    contents = contents_of(f"{kind}:1")
    places = list(product(range(2000), range(3)))
    assert len({contents.page(*place) for place in places}) == len(places)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_text_compresses_about_two_and_a_half_times(seed: int) -> None:
    assert 2.3 < lz4_ratio(contents_of("text:1", seed)) < 2.7


def test_random_does_not_compress() -> None:
    assert lz4_ratio(contents_of("random:1")) < 1.03


def test_zero_and_same_repeat_one_word() -> None:
    assert {contents_of("zero:1").page(number, 0) for number in range(PAGES)} == {bytes(PAGE_BYTES)}
    for number in range(PAGES):
        page = contents_of("same:1").page(number, 0)
        assert page == page[:8] * (PAGE_BYTES // 8)
        assert any(page)


def test_kinds_follow_the_mix() -> None:
    contents = contents_of("zero:1,text:3")
    kinds = [contents.kind(number, 0) for number in range(4000)]
    assert set(kinds) == {"zero", "text"}
    assert 0.22 < kinds.count("zero") / len(kinds) < 0.28


@pytest.mark.parametrize("text", ["", "zero", "zero:-1", "colour:1", "zero:0"])
def test_a_bad_mix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"mix|weight"):
        parse_mix(text)


def test_an_untouched_memory_has_no_mismatch() -> None:
    workload = filled_workload(DEFAULT_MIX)
    workload.verify("verify")
    workload.touch(random.Random(1), 1000)
    workload.verify("final")
    assert workload.mismatch_count == 0
    assert sum(workload.versions) == 500  # every second touch wrote
    assert [phase.phase for phase in workload.phases] == ["fill", "verify", "touch", "final"]


@pytest.mark.parametrize("kind", ["zero", "same", "text", "random"])
@pytest.mark.parametrize("at", [0, 1, 15, 16, 2047, 4080, 4095])
def test_one_flipped_bit_is_noticed(kind: str, at: int) -> None:
    workload = filled_workload(f"{kind}:1")
    offset = 7 * PAGE_BYTES + at
    workload.memory[offset] ^= 1
    workload.verify("verify")
    assert workload.mismatch_count == 1
    mismatch = workload.mismatches[0]
    assert (mismatch.page, mismatch.kind, mismatch.offset) == (7, kind, offset)
    assert mismatch.wrong_bytes == 1


def test_a_touch_notices_too() -> None:
    workload = filled_workload()
    for number in range(PAGES):
        workload.memory[number * PAGE_BYTES + 1000] ^= 0x80
    workload.touch(random.Random(1), 20)
    assert workload.mismatch_count > 0
    assert workload.mismatches[0].phase == "touch"


def test_a_page_in_the_place_of_another_is_named() -> None:
    workload = filled_workload()
    workload.memory[5 * PAGE_BYTES : 6 * PAGE_BYTES] = workload.contents.page(6, 0)
    workload.verify("verify")
    assert [mismatch.found for mismatch in workload.mismatches] == ["page 6 version 0"]


def test_an_old_version_is_named() -> None:
    workload = filled_workload()
    workload.versions[5] = 3  # the memory still holds version 0
    workload.verify("verify")
    assert [mismatch.found for mismatch in workload.mismatches] == ["page 5 version 0"]


def test_a_lost_page_is_named() -> None:
    workload = filled_workload()
    workload.memory[:PAGE_BYTES] = bytes(PAGE_BYTES)
    workload.verify("verify")
    assert [mismatch.found for mismatch in workload.mismatches] == ["zeros"]


def test_the_report_stays_short_however_much_is_wrong() -> None:
    workload = filled_workload()
    workload.memory[:] = bytes(len(workload.memory))
    workload.verify("verify")
    assert workload.mismatch_count == PAGES
    assert len(workload.mismatches) < 10
