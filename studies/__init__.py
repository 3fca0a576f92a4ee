"""What the project measures and simulates: what a run costs, and what an outage means."""
