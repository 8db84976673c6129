"""The parts of a fit that workers do; those of an algorithm with a folder of its own are there (`distributed_*.py`)."""
