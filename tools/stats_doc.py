"""Writes the tables of docs/stats.md from the field table: .venv/bin/python tools/stats_doc.py

Owns what is between the markers there; the rest is written by hand. tests/frame/test_docs.py fails
when the file is out of date.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vswapfs.core.stats import CONDITIONS, FIELDS, HISTOGRAMS, TIER_FIELDS, Field, Kind

STATS: Final = Path(__file__).resolve().parent.parent / "docs/stats.md"
_MARKED: Final = re.compile(
    r"(<!-- (\w+): written by tools/stats_doc.py -->\n).*?(<!-- end -->)", re.DOTALL
)
_TABLES: Final = {
    "figures": FIELDS,
    "histograms": HISTOGRAMS,
    "tiers": TIER_FIELDS,
    "conditions": CONDITIONS,
}


def table(fields: Iterable[Field]) -> str:
    """A table in Markdown."""
    rows = ["| key | type | unit | metric | meaning |", "|---|---|---|---|---|"]
    for field in fields:
        metric = field.metric + ("_total" if field.kind is Kind.COUNTER else "")
        rows.append(f"| `{field.key}` | {field.kind} | {field.unit} | `{metric}` | {field.help} |")
    return "\n".join(rows)


def written(text: str) -> str:
    """The document with its tables as they have to be."""
    return _MARKED.sub(lambda found: f"{found[1]}{table(_TABLES[found[2]])}\n{found[3]}", text)


if __name__ == "__main__":
    STATS.write_text(written(STATS.read_text()))
