"""What `python -m ops.bench` measures, one file a noun."""
