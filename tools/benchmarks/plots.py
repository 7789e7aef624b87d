"""A report as a picture: one small bar chart a case, one bar a peer.

Owns the drawing. matplotlib is imported here only, and only when something is drawn.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from benchmarks.report import Report

COLUMNS: Final = 4


def draw(report: "Report", path: Path) -> Path:
    """Write an SVG: medians, with the lowest and the highest round as a line on each bar."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = report.command  # the same figures give the same file
    from matplotlib import pyplot

    cases, peers = report.cases(), report.peers()
    columns = min(COLUMNS, len(cases))
    rows = math.ceil(len(cases) / columns)
    size_inches = (3.2 * columns, (0.7 + 0.22 * len(peers)) * rows)
    figure, grid = pyplot.subplots(rows, columns, figsize=size_inches, squeeze=False)
    for axes in grid.flat[len(cases) :]:
        axes.set_visible(False)
    for axes, case in zip(grid.flat, cases, strict=False):
        for place, peer in enumerate(peers):
            values = report.values(case, peer)
            if values:
                axes.barh(place, report.median(case, peer), color=f"C{place}")
                axes.plot((min(values), max(values)), (place, place), color="black", linewidth=1)
        axes.set_yticks(range(len(peers)), peers, fontsize=7)
        axes.invert_yaxis()
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(f"{case}, {report.unit(case)}", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
