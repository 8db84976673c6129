"""What `python -m ops.benchmarks` measures, one file a noun."""
