"""The faults of the failure drill, and what is promised during each."""
