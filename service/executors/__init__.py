"""Executors: where the tasks of a training or of a bulk generation run, on this machine or on many."""
