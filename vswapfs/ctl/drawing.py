"""Grids as image files.

Owns the drawing. matplotlib is imported here only, and only when something is drawn. Never decides
what is shown: that is in grid.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from vswapfs.ctl.grid import Grid, row_offsets
from vswapfs.errors import HostError, UsageError
from vswapfs.units import format_size

CELLS_MAX: Final = 8192
_COLUMNS: Final = 128
_WIDTH_INCHES: Final = 10.0
_ROW_INCHES: Final = 0.075
_LABELS_MAX: Final = 9
_SEPARATED_MAX: Final = 1024
"""Up to so many cells there are lines between them."""


def draw(grids: Sequence[Grid], title: str, path: Path, form: str) -> None:
    """Write the grids, one below the other, with their legends; ``form`` is png or svg.

    Raises UsageError if matplotlib is not installed, HostError if the file cannot be written.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise UsageError(
            f"--{form} {path}: a picture needs matplotlib, which is not installed",
            remedy="pip install 'vswapfs[pictures]', or leave the option out",
        ) from None
    mpl.use("svg" if form == "svg" else "agg")
    from matplotlib import pyplot

    rows = [max(1, len(row_offsets(grid, _COLUMNS))) for grid in grids]
    heights = [max(0.5, _ROW_INCHES * count) for count in rows]
    figure, axes = pyplot.subplots(
        len(grids), 1, squeeze=False, height_ratios=heights,
        figsize=(_WIDTH_INCHES, sum(heights) + 1.1 * len(grids) + 0.4), layout="constrained",
    )  # fmt: skip
    figure.suptitle(title, fontsize=11)
    for each, grid in zip(axes.flat, grids, strict=True):
        _draw_one(each, grid)
    try:
        figure.savefig(path, format=form, dpi=110)
    except OSError as error:
        raise HostError(
            f"write {path}", error.strerror or str(error), remedy="give a path that can be written"
        ) from None
    finally:
        pyplot.close(figure)


def _draw_one(axes: Any, grid: Grid) -> None:
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch

    offsets = row_offsets(grid, _COLUMNS)
    columns = min(_COLUMNS, max(1, len(grid.cells)))
    # What is behind the last cell is white.
    beyond = len(grid.kinds)
    missing = len(offsets) * columns - len(grid.cells)
    cells = [*grid.cells, *[beyond] * missing]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    colours = ListedColormap([*(kind.colour for kind in grid.kinds), "#ffffff"])
    norm = BoundaryNorm([number - 0.5 for number in range(beyond + 2)], beyond + 1)
    axes.imshow(rows, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    step = -(-len(offsets) // _LABELS_MAX)
    shown = range(0, len(offsets), step)
    axes.set_yticks(list(shown), [format_size(offsets[row]) for row in shown], fontsize=7)
    axes.set_xticks([])
    axes.set_ylabel("offset", fontsize=7)
    if len(grid.cells) <= _SEPARATED_MAX:
        for column in range(1, columns):
            axes.axvline(column - 0.5, color="#ffffff", linewidth=0.5)
        for row in range(1, len(rows)):
            axes.axhline(row - 0.5, color="#ffffff", linewidth=0.5)
    size = format_size(grid.cell_units * grid.unit_bytes)
    most = f", with the colour of most of its {grid.unit}" if grid.cell_units > 1 else ""
    axes.set_title(f"{grid.title} (a cell is {size}{most})", fontsize=9, loc="left")
    axes.legend(
        handles=[
            Patch(facecolor=kind.colour, edgecolor="#888888", label=f"{kind.name}: {count}")
            for kind, count in zip(grid.kinds, grid.counts, strict=True)
        ],
        loc="upper left", bbox_to_anchor=(0, -0.01), ncols=4, fontsize=7, frameon=False,
        borderaxespad=0.3, title=f"{grid.unit}", title_fontsize=7, alignment="left",
    )  # fmt: skip
