"""Commands, drills, load tests and benchmarks for operators. No other package imports this one."""
