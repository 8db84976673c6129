"""The load generator: pacing, attack, traffic, outcome, summary, report."""
