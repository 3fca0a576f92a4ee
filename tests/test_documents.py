"""The documents are true of the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import rotate_token
from rotate_token import errors

PROJECT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for path in (
        *PROJECT.glob("*.md"),
        *PROJECT.glob("docs/*.md"),
        *PROJECT.glob("examples/*/README.md"),
    )
    if path.name != "CHANGELOG.md"
)


def test_errors() -> None:
    """The runbook explains each error that can end a run, in the order of the code."""
    runbook = (PROJECT / "docs" / "operations.md").read_text()
    classes = [error for _, error in inspect.getmembers(errors, inspect.isclass)]
    final = {
        error.__name__
        for error in classes
        if not error.__subclasses__()
        or error in {errors.SecretsManagerError, errors.TokenRequestRefusedError}
    }

    assert final == set(re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", runbook, re.MULTILINE))


def test_tree_of_errors() -> None:
    """The tree in the docstring is the hierarchy of the classes."""
    (tree,) = re.findall(
        r"^    RotationError$.*?\n\n", errors.__doc__ or "", re.MULTILINE | re.DOTALL
    )
    drawn: list[tuple[str, str]] = []
    path: list[str] = []
    for line in tree.splitlines():
        if match := re.search(r"[A-Z]\w+Error", line):
            depth = match.start() // 4 - 1
            path[depth:] = [match[0]]
            drawn.append((match[0], path[depth - 1] if depth else "Exception"))

    classes = [error for _, error in inspect.getmembers(errors, inspect.isclass)]
    assert sorted(drawn) == sorted(
        (error.__name__, error.__bases__[0].__name__) for error in classes
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links(document: Path) -> None:
    """Every link within the repository leads somewhere."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_commands(document: Path) -> None:
    """Every make target that is named exists."""
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"(?:`|^)make ([a-z]+)", document.read_text(), re.MULTILINE)) <= targets


def test_version() -> None:
    """The template has the version of the code, and so has the newest release in the changelog."""
    template = (PROJECT / "template.yaml").read_text()
    changelog = (PROJECT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)

    assert re.findall(r"SemanticVersion: (\S+)", template) == [rotate_token.__version__]
    assert released[:1] in ([], [rotate_token.__version__])
