"""Tables and charts for the studies; charts suit light and dark pages."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.axes import Axes

WRITES = os.environ.get("WRITE") == "1"
"""Whether documents and charts are written."""

GREY, BLUE, ORANGE, GREEN, RED = "#7d7d7d", "#3f86d2", "#d9731a", "#2e9b60", "#d64545"
"""Each has enough contrast with black and with white."""

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
    "svg.fonttype": "none",  # keep text as text
    "svg.hashsalt": "the same data give the same file",
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def write(document: Path, text: str) -> None:
    """Print a text; with ``WRITE=1`` set, also write it between a document's markers."""
    print(text)
    if WRITES:
        marks = re.compile(r"(?<=<!-- made by make -->\n).*(?=<!-- end -->)", re.DOTALL)
        document.write_text(marks.sub(lambda _: f"{text}\n", document.read_text()))
    else:
        print(f"\n{document} is unchanged; WRITE=1 updates it and its charts.")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table in Markdown."""
    lines = [tuple(head), *map(tuple, rows)]
    lines.insert(1, ("---", *["---:"] * (len(lines[0]) - 1)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def make_chart(width: float, height: float) -> tuple[Figure, Axes]:
    """Make an empty chart; width and height are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def save(figure: Figure, path: Path) -> None:
    """Write a chart to an SVG file without a background, with ``WRITE=1`` in the environment."""
    if WRITES:
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
