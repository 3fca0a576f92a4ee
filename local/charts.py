"""Charts as SVG files that read well on light and on dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

GREY, BLUE, ORANGE, GREEN = "#7d7d7d", "#3f86d2", "#d9731a", "#2e9b60"
"""Each has enough contrast to black and to white."""

mpl.rcParams |= {
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": GREY,
    "axes.titlelocation": "left",
    "font.family": "sans-serif",
    "legend.frameon": False,
    "legend.labelcolor": GREY,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "the same data give the same file",
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def make_chart(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a chart of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def save(figure: Figure, path: Path) -> None:
    """Write a chart to an SVG file without a background."""
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
