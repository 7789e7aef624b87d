"""The store against a dictionary: random operations, ordinary and hostile geometry."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from regions import KINDS, Model, deadline, make_page

from vswapfs.core.buffers import RESERVE_SEGMENTS, Geometry
from vswapfs.core.check import check
from vswapfs.core.store import SameFilled

GEOMETRIES = {
    "ordinary": Geometry(page_count=2048, slot_count=16, segment_bytes=1 << 17),
    "few records a segment": Geometry(page_count=300, slot_count=40, segment_bytes=1 << 14),
    "one raw record a segment": Geometry(page_count=64, slot_count=8, segment_bytes=1 << 13),
    "few segments": Geometry(page_count=512, slot_count=5, segment_bytes=1 << 14),
    "limit is reserve + 1": Geometry(
        page_count=64, slot_count=RESERVE_SEGMENTS + 1, segment_bytes=1 << 15
    ),
    "many clusters": Geometry(page_count=12 << 9, slot_count=24, segment_bytes=1 << 14),
    "one page": Geometry(page_count=1, slot_count=4, segment_bytes=1 << 13),
}
MEETS_THE_LIMIT = ("one raw record a segment", "few segments", "limit is reserve + 1")


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("same_filled", SameFilled)
def test_random_operations_match_a_dictionary(name: str, same_filled: SameFilled) -> None:
    full_count = 0
    for seed in range(4):
        model = Model(GEOMETRIES[name], seed, same_filled)
        with deadline(5):
            for _ in range(600):
                model.step()
                assert model.store.recount or check(model.store) == []
            model.verify_all()
        assert model.store.checksum_errors == 0
        full_count += model.full_count
    if name in MEETS_THE_LIMIT:
        assert full_count > 0, "the limit was never met"


class StoreMachine(RuleBasedStateMachine):
    """The same by hypothesis, which finds short sequences; pages and pool are tiny."""

    page = st.integers(0, 23)

    @initialize(
        slots=st.integers(2, 24),
        shift=st.sampled_from((13, 14, 15)),
        same_filled=st.sampled_from(SameFilled),
    )
    def begin(self, slots: int, shift: int, same_filled: SameFilled) -> None:
        self.model = Model(Geometry(24, slots, 1 << shift), 0, same_filled)

    @rule(page=page, kind=st.sampled_from(KINDS))
    def store(self, page: int, kind: str) -> None:
        with deadline(1):
            self.model.put(page, make_page(self.model.rng, kind))

    @rule(first=page, count=st.integers(1, 24), kind=st.sampled_from(KINDS))
    def store_run(self, first: int, count: int, kind: str) -> None:
        for page in range(first, min(first + count, 24)):
            self.store(page, kind)

    @rule(first=page, count=st.integers(1, 24))
    def discard(self, first: int, count: int) -> None:
        self.model.discard(first, min(count, 24 - first))

    @rule(steps=st.integers(1, 8))
    def clean(self, steps: int) -> None:
        self.model.store.clean(steps)

    @rule()
    def clean_victim(self) -> None:
        with deadline(1):
            self.model.store.cleaner.run_victim()

    @rule()
    def successor(self) -> None:
        self.model.reattach()

    @invariant()
    def all_is_there(self) -> None:
        if hasattr(self, "model"):
            self.model.verify_all()


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),  # shrinking a hang takes minutes
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
