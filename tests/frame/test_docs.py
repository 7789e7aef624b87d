"""docs/stats.md and the field table name the same figures, in the same order and words."""

import re
from pathlib import Path

from vswapfs.core.stats import FIELDS

STATS = Path(__file__).parent.parent.parent / "docs" / "stats.md"
ROW = re.compile(r"\| `([a-z_.]+)` \| (\w+) \| (yes)? ?\| (.+) \|")


def test_stats_document_is_the_field_table() -> None:
    rows = [ROW.fullmatch(line) for line in STATS.read_text().splitlines() if line[:3] == "| `"]
    documented = [row and (row[1], row[2], row[3] == "yes", row[4]) for row in rows]
    assert documented == [(f.key, f.unit.value, f.total, f.help) for f in FIELDS]
