"""Follow the log of the deployed function, one line for each event: `make logs`."""

import sys
import time

from operations.deployment import Deployment, one_line_errors

HOURS_BACK = 3
POLL_SECONDS = 5
LATE_SECONDS = 60
"""How much later than a newer event one may arrive, and still be printed."""


def main(environment: str) -> None:
    """Print the events of the last hours, and then each new one."""
    with one_line_errors():
        deployment = Deployment.find(environment)
        newest = time.time() - 3600 * HOURS_BACK + LATE_SECONDS
        printed: set[str] = set()
        while True:
            for event in deployment.log_events(since=newest - LATE_SECONDS):
                if event["eventId"] not in printed:
                    printed.add(event["eventId"])
                    print(" ".join(event["message"].split()), flush=True)
                newest = max(newest, event["timestamp"] / 1000)
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
