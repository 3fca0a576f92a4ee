"""The benchmark; `.ci/run` runs it."""

import pytest

from studies import benchmark
from studies.benchmark import CPU, FUNCTION, MEMORY


@pytest.mark.parametrize("rounds", ["x", "", "1", "2.5"])
def test_rounds(rounds: str) -> None:
    """A number of rounds that cannot be measured ends it with one line, before anything starts."""
    with pytest.raises(SystemExit, match=f"^ROUNDS must be 2 or more, not '{rounds}'$"):
        benchmark.main(rounds)


def test_compare() -> None:
    """The table has medians, quartiles where they differ, and the ratios within each round."""
    samples = {
        FUNCTION: {CPU: [100.0, 200.0, 300.0], MEMORY: [50.0, 50.0, 50.0]},
        "script": {CPU: [50.0, 400.0, 100.0], MEMORY: [100.0, 100.0, 100.0]},
    }

    assert benchmark.compare(samples).splitlines()[2:] == [
        "| this function | 200 (150 to 250) | 50 | 1.00 | 1.00 |",
        "| script | 100 (75 to 250) | 100 | 2.00 (1.25 to 2.50) | 0.50 |",
    ]
