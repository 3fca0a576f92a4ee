"""The benchmark; `.ci/run` runs it."""

import pytest

from studies import benchmark


@pytest.mark.parametrize("rounds", ["x", "", "1", "2.5"])
def test_rounds(rounds: str) -> None:
    """A number of rounds that cannot be measured ends it with one line, before anything starts."""
    with pytest.raises(SystemExit, match=f"^ROUNDS must be 2 or more, not '{rounds}'$"):
        benchmark.main(rounds)
