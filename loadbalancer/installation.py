"""The installation on one machine: its ports, its configuration files, and the parts that use them."""

from dataclasses import replace
from pathlib import Path

from loadbalancer import ports, redis_conf, unix_sockets
from loadbalancer.binaries import Binary, find_nginx, find_redis
from loadbalancer.installation_spec import InstallationSpec
from loadbalancer.nginx import configuration, configuration_files
from loadbalancer.part_kinds import Part, balancer_part, consumer_part, redis_part, replica_part
from loadbalancer.settings import BalancerSettings
from loadbalancer.topology import Balancer, Replica, Topology, address, reachable


def find_binaries(settings: BalancerSettings, *, redis: bool) -> tuple[Binary, Binary | None]:
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
    settings = spec.settings
    spec.logs.mkdir(parents=True, exist_ok=True)
    count = 1 + 2 * settings.slots + settings.balancers
    chosen = iter(ports.choose(count, taken=frozenset({settings.port})))
    parts: list[Part] = []
    redis = spec.redis
    if redis is not None:
        socket = unix_sockets.choose_path(spec.home, "redis.sock")
        spec = replace(spec, environ={**spec.environ, "RECOLLECT_REDIS_URL": redis_conf.url(socket)})
        parts.append(redis_part(spec, (str(redis.path), str(_write_redis_conf(spec.home, socket))), socket))
    consumer_port = next(chosen)
    if spec.consumer:
        parts.append(consumer_part(spec, consumer_port))
    replicas = tuple(
        Replica(f"replica-{slot}", "127.0.0.1", next(chosen), next(chosen)) for slot in range(settings.replicas)
    )
    candidates = tuple(
        Replica(f"candidates-{slot}", "127.0.0.1", next(chosen), next(chosen))
        for slot in range(settings.replicas, settings.slots)
    )
    balancers = tuple(
        Balancer(f"nginx-{number}", settings.host, settings.port, next(chosen)) for number in range(settings.balancers)
    )
    topology = Topology(replicas, balancers, candidates)
    # Candidates first: a list without them is degraded.
    finding, making = (("--role", "candidates"), ("--role", "ranking", "--candidates", topology.candidate_urls))
    parts += [replica_part(spec, replica, slot, finding) for slot, replica in enumerate(candidates, settings.replicas)]
    parts += [replica_part(spec, replica, slot, making if candidates else ()) for slot, replica in enumerate(replicas)]
    for balancer in balancers:
        argv = _write_nginx_conf(spec, topology, balancer)
        parts.append(balancer_part(spec, argv, balancer, topology))
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
