"""Live state: what each user did last, as a feed in Redis and a snapshot on disk."""
