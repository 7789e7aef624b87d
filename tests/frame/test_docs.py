"""docs/stats.md has the tables that tools/stats_doc.py writes from the field table."""

from stats_doc import STATS, written

from vswapfs.core.stats import CONDITIONS, FIELDS, HISTOGRAMS, TIER_FIELDS, Field, Kind, Unit


def test_stats_document_is_the_field_table() -> None:
    text = STATS.read_text()
    assert text.count("written by tools/stats_doc.py -->") == 4
    assert text == written(text), "run .venv/bin/python tools/stats_doc.py"


def test_keys_and_metrics_are_there_once() -> None:
    every = (*FIELDS, *HISTOGRAMS, *TIER_FIELDS, *CONDITIONS)
    assert len({field.key for field in every}) == len(every)
    assert len({field.metric for field in every}) == len(every)


def test_names_of_metrics() -> None:
    def metric(key: str, unit: Unit) -> str:
        return Field(key, unit, "").metric

    assert metric("pool.used_bytes", Unit.BYTES) == "vswapfs_pool_used_bytes"
    assert metric("lane.window_us", Unit.MICROSECONDS) == "vswapfs_lane_window_seconds"
    assert metric("pool.density_pct", Unit.PERCENT) == "vswapfs_pool_density_ratio"
    assert metric("pool.ratio", Unit.RATIO) == "vswapfs_pool_ratio"
    assert metric("pages.stored_total", Unit.PAGES) == "vswapfs_pages_stored"
    assert Field("a", Unit.COUNT, "", total=True).kind is Kind.COUNTER
