"""Tables, and charts that read well on light and on dark pages, for measured documents."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.axes import Axes

GREY, BLUE, ORANGE, GREEN, RED = "#7d7d7d", "#3f86d2", "#d9731a", "#2e9b60", "#d64545"
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


def write(document: Path, text: str) -> None:
    """Put a text between the two marks of a document, and on the terminal."""
    print(text)
    marks = re.compile(r"(?<=<!-- made by make -->\n).*(?=<!-- end -->)", re.DOTALL)
    document.write_text(marks.sub(lambda _: f"{text}\n", document.read_text()))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table in Markdown."""
    lines = [tuple(head), *map(tuple, rows)]
    lines.insert(1, ("---", *["---:"] * (len(lines[0]) - 1)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def make_chart(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a chart of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def save(figure: Figure, path: Path) -> None:
    """Write a chart to an SVG file without a background."""
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
