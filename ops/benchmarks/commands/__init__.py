"""The commands of `python -m ops.benchmarks`, by what they measure."""
