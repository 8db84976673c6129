"""The parts of a fit that workers do, one file for each algorithm."""
