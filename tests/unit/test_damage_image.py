"""tools/damage image run: every kind is noticed, and without checksums it would not be."""

import random
from collections import Counter

import pytest
from damage_image import DATA_KINDS, KINDS, Lab


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(3)


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_is_unnoticed(lab: Lab, kind: str) -> None:
    counts: Counter[str] = Counter()
    for number in range(4):
        counts += lab.case(kind, random.Random(number))
    assert counts["cases"] == 4
    assert counts["undetected"] == counts["crc32 undetected"] == 0
    assert counts["refused"] + counts["harmless"] == 4


def test_without_checksums_wrong_pages_would_be_restored(lab: Lab) -> None:
    rng = random.Random(1)
    assert "flip-chunk" in DATA_KINDS
    assert any(lab.case("flip-chunk", rng)["none undetected"] for _ in range(6))
