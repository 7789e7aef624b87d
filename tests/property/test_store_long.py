"""The long run of the model: 200 000 operations. Marker ``long``."""

import pytest
from regions import Model, deadline

from vswapfs.core.buffers import Geometry
from vswapfs.core.check import check
from vswapfs.core.store import SameFilled

OPERATIONS = 50_000
CHECK_EVERY = 250


@pytest.mark.long
@pytest.mark.parametrize("same_filled", [SameFilled.SAME, SameFilled.OFF])
@pytest.mark.parametrize(
    "geometry",
    [Geometry(1024, 5, 1 << 17), Geometry(700, 14, 1 << 15)],
    ids=["128K segments", "32K segments"],
)
def test_many_operations_match_a_dictionary(geometry: Geometry, same_filled: SameFilled) -> None:
    model = Model(geometry, seed=2024, same_filled=same_filled)
    with deadline(600):
        for number in range(OPERATIONS):
            model.step()
            if number % CHECK_EVERY == 0:
                model.verify_all()
        model.verify_all()
    assert check(model.store) == []
    assert model.full_count > 0, "the limit was never met"
    assert model.cleaned_count + model.store.cleaner.cleaned_total > 0
    assert model.store.checksum_errors == 0
