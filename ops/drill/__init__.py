"""The failure drill of `recollect chaos`: stages, schedule, load, oracle and verdict."""
