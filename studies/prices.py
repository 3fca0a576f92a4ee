"""What Lambda charges, and how much CPU time it gives for it."""

US_DOLLARS_PER_GB_SECOND = 0.0000133334
"""The list price on arm64 in us-east-1."""

MEMORY_MB_OF_ONE_CPU = 1769
"""CPU time is in proportion to memory: a function of this size has one full CPU."""


def us_dollars(seconds: float, memory_mb: float) -> float:
    """Return the price of running for the given number of seconds."""
    return seconds * memory_mb / 1024 * US_DOLLARS_PER_GB_SECOND
