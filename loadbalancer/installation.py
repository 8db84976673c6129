"""Lays out one machine: ports, configuration files, and the parts that use them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadbalancer import ports, redis_conf, unix_sockets
from loadbalancer.binaries import Binary, find_nginx, find_redis
from loadbalancer.nginx import configuration, configuration_files
from loadbalancer.part_kinds import Part, balancer_part, consumer_part, redis_part, replica_part
from loadbalancer.settings import BalancerSettings
from loadbalancer.topology import Balancer, Replica, Topology, address, reachable


@dataclass(frozen=True)
class Plan:
    """What to lay out.

    Args:
        settings: The balancer's settings.
        home: The home directory, absolute.
        logs: The folder of logs, absolute.
        models: The folder with popular.txt and popular.json.
        program: The start of every Python part's argv, to which its verb and options are added.
        environ: The environment of every part, RECOLLECT_HOME and the like already in it.
        nginx: The nginx to run.
        redis: The redis-server to run, or None where Redis is somebody else's.
        consumer: Whether to run the consumer.
        drain_s: The longest a replica takes to stop.
    """

    settings: BalancerSettings
    home: Path
    logs: Path
    models: Path
    program: Sequence[str]
    environ: Mapping[str, str]
    nginx: Binary
    redis: Binary | None
    consumer: bool
    drain_s: float


def binaries(settings: BalancerSettings, *, redis: bool) -> tuple[Binary, Binary | None]:
    """Find nginx, and redis-server if it is to be run.

    Raises:
        BinaryMissing: There is none that is new enough.
    """
    return find_nginx(settings.nginx), find_redis(settings.redis_server) if redis else None


def base_url(settings: BalancerSettings) -> str:
    """Return the address at which clients on this machine reach the balancer."""
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://{address(reachable(settings.host), settings.port)}"


def lay_out(plan: Plan) -> tuple[Part, ...]:
    """Choose ports, write the configuration files, and return the parts in the order in which they start.

    Raises:
        BalancerError: No ports are free, or nginx refuses its configuration.
    """
    settings, logs = plan.settings, plan.logs
    own_redis = plan.redis is not None
    logs.mkdir(parents=True, exist_ok=True)
    count = 1 + 2 * settings.replicas + settings.balancers
    chosen = iter(ports.choose(count, taken=frozenset({settings.port})))
    consumer_port = next(chosen)
    replicas = tuple(
        Replica(f"replica-{slot}", "127.0.0.1", next(chosen), next(chosen)) for slot in range(settings.replicas)
    )
    environ = dict(plan.environ)
    parts: list[Part] = []
    if plan.redis is not None:
        socket = unix_sockets.place(plan.home, "redis.sock")
        environ["RECOLLECT_REDIS_URL"] = redis_conf.url(socket)
        parts.append(redis_part(plan.redis, _write_redis_conf(plan.home, socket), socket, logs, environ))
    if plan.consumer:
        parts.append(consumer_part(plan.program, consumer_port, logs, environ, settings=settings, redis=own_redis))
    for slot, replica in enumerate(replicas):
        part = replica_part(
            plan.program, replica, slot, logs, environ, settings=settings, redis=own_redis, drain_s=plan.drain_s
        )
        parts.append(part)
    balancers = tuple(
        Balancer(f"nginx-{number}", settings.host, settings.port, next(chosen)) for number in range(settings.balancers)
    )
    for balancer in balancers:
        argv = _write_nginx_conf(plan, Topology(replicas, balancers), balancer)
        parts.append(balancer_part(argv, balancer, replicas, logs, environ, settings=settings))
    return tuple(parts)


def _write_redis_conf(home: Path, socket: Path) -> Path:
    directory = home / "redis"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "redis.conf"
    path.write_text(redis_conf.render(directory, socket), encoding="utf-8")
    return path


def _write_nginx_conf(plan: Plan, topology: Topology, balancer: Balancer) -> tuple[str, ...]:
    run_dir = plan.home / "run" / balancer.name
    here = configuration_files.surroundings(plan.nginx.path, run_dir=run_dir, logs=plan.logs, models=plan.models)
    argv = configuration_files.command(plan.nginx.path, run_dir, plan.logs / f"{balancer.name}.error.log")
    configuration_files.install(argv, run_dir, configuration.render(topology, balancer, plan.settings, here))
    return argv
