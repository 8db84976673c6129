"""The container image: how it is built, what it needs of the lock, and a runner of pods for drills and tests."""
