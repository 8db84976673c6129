"""The executor that the options of a command choose."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.config import Config
from service.executors.executor import Watch, no_watch, using


@contextmanager
def chosen_executor(config: Config, n_workers: int, watch: Watch = no_watch) -> Iterator[None]:
    """Let the work inside use worker processes of this machine; 0 for the threads of this process alone."""
    if not n_workers:
        yield
        return
    from service.executors.local_executor import LocalExecutor

    with LocalExecutor(n_workers, config.executor_dir, watch) as executor, using(executor):
        yield
