"""The executor that the options of a command choose."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.config import Config
from service.errors import UsageError
from service.executors.executor import Watch, no_watch, using


@contextmanager
def chosen_executor(
    config: Config, n_workers: int, watch: Watch = no_watch, *, cluster: str | None = None
) -> Iterator[None]:
    """Let the work inside use the workers of a cluster, or worker processes of this machine.

    Args:
        config: The settings.
        n_workers: Processes of this machine; 0 for the threads of this process alone.
        watch: Called with each change of a worker.
        cluster: HOST:PORT of the head of a cluster; None for this machine alone.

    Raises:
        UsageError: Both are asked for, the address is malformed, or there is no token.
        RunError: The cluster cannot be used.
    """
    if cluster is not None:
        if n_workers:
            raise UsageError("Work is done by --workers of this machine or on a --cluster, not both.")
        from ops.cluster.members import address_here, adopt_cluster_environment
        from ops.cluster.part import part_of_command
        from ops.cluster.token_file import token_path
        from service.executors.ray_executor import RayExecutor

        address = address_here(config, cluster)
        adopt_cluster_environment(config)
        with (
            part_of_command(config, token_path(config), cluster, address) as own,
            RayExecutor(cluster, own, watch) as on_cluster,
            using(on_cluster),
        ):
            yield
        return
    if not n_workers:
        yield
        return
    from service.executors.local_executor import LocalExecutor

    with LocalExecutor(n_workers, config.executor_dir, watch) as executor, using(executor):
        yield
