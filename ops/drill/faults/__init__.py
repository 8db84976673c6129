"""The faults of the failure drill, and the promise of each."""
