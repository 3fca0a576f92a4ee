"""Tables and charts in ``docs/``; charts suit light and dark pages."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DOCS = Path("docs")

WRITES = os.environ.get("WRITE") == "1"
"""Whether documents and charts are written."""

GREY, BLUE, ORANGE, GREEN, RED = "#7d7d7d", "#3f86d2", "#d9731a", "#2e9b60", "#d64545"
"""Each has enough contrast with black and with white."""

mpl.rcParams |= {
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.fonttype": "none",  # keep text as text
    "svg.hashsalt": "the same data give the same file",
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def write(name: str, text: str) -> None:
    """Print a text; with ``WRITE=1`` set, also write it between a document's markers."""
    document = DOCS / name
    print(text)
    if WRITES:
        marks = re.compile(r"(?<=<!-- made by make -->\n).*(?=<!-- end -->)", re.DOTALL)
        old = document.read_text(encoding="utf-8")
        document.write_text(marks.sub(lambda _: f"{text}\n", old), encoding="utf-8")
    else:
        print(f"\n{document} is unchanged; WRITE=1 updates it and its charts.")


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table in Markdown."""
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@contextmanager
def chart(name: str, width: float, height: float) -> Iterator[Axes]:
    """Make a chart, in inches; with ``WRITE=1`` set, write it as SVG without a background."""
    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure.add_subplot()
    if WRITES:
        figure.savefig(DOCS / name, transparent=True, metadata={"Date": None, "Creator": None})
