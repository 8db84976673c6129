"""What `recollect doctor` checks."""
