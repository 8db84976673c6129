"""The installation on one machine: its ports, its configuration files, and the parts that use them."""

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
class InstallationSpec:
    """What an installation consists of.

    Args:
        home: The home directory, absolute.
        logs: The folder of logs, absolute.
        models: The folder with popular.txt and popular.json.
        program: The start of every Python part's argv, to which its verb and options are added.
        environ: The environment of every part, RECOLLECT_HOME and the like already in it.
        redis: The redis-server to run, or None if Redis runs elsewhere.
        consumer: Whether to run the consumer.
        drain_s: The longest drain of a replica.
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


def prepare(spec: InstallationSpec) -> tuple[Part, ...]:
    """Choose ports, write the configuration files, and return the parts in start order.

    Raises:
        BalancerError: No ports are free, or nginx rejects its configuration.
    """
    settings, logs = spec.settings, spec.logs
    own_redis = spec.redis is not None
    logs.mkdir(parents=True, exist_ok=True)
    count = 1 + 2 * settings.replicas + settings.balancers
    chosen = iter(ports.choose(count, taken=frozenset({settings.port})))
    consumer_port = next(chosen)
    replicas = tuple(
        Replica(f"replica-{slot}", "127.0.0.1", next(chosen), next(chosen)) for slot in range(settings.replicas)
    )
    environ = dict(spec.environ)
    parts: list[Part] = []
    if spec.redis is not None:
        socket = unix_sockets.place(spec.home, "redis.sock")
        environ["RECOLLECT_REDIS_URL"] = redis_conf.url(socket)
        parts.append(redis_part(spec.redis, _write_redis_conf(spec.home, socket), socket, logs, environ))
    if spec.consumer:
        parts.append(consumer_part(spec.program, consumer_port, logs, environ, settings=settings, redis=own_redis))
    parts += [
        replica_part(
            spec.program, replica, slot, logs, environ, settings=settings, redis=own_redis, drain_s=spec.drain_s
        )
        for slot, replica in enumerate(replicas)
    ]
    balancers = tuple(
        Balancer(f"nginx-{number}", settings.host, settings.port, next(chosen)) for number in range(settings.balancers)
    )
    for balancer in balancers:
        argv = _write_nginx_conf(spec, Topology(replicas, balancers), balancer)
        parts.append(balancer_part(argv, balancer, replicas, logs, environ, settings=settings))
    return tuple(parts)


def _write_redis_conf(home: Path, socket: Path) -> Path:
    directory = home / "redis"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "redis.conf"
    path.write_text(redis_conf.render(directory, socket), encoding="utf-8")
    return path


def _write_nginx_conf(spec: InstallationSpec, topology: Topology, balancer: Balancer) -> tuple[str, ...]:
    run_dir = spec.home / "run" / balancer.name
    host = configuration_files.inspect_host(spec.nginx.path, run_dir=run_dir, logs=spec.logs, models=spec.models)
    argv = configuration_files.command(spec.nginx.path, run_dir, spec.logs / f"{balancer.name}.error.log")
    configuration_files.install(argv, run_dir, configuration.render(topology, balancer, spec.settings, host))
    return argv
