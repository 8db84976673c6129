"""What people run against a live system. Nothing imports this package."""
