"""Replay: a served list made again from the archive, its model and its watermarks."""
