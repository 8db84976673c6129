"""The installation on one machine: its ports, its configuration files, and the parts that use them."""

from dataclasses import dataclass, replace
from pathlib import Path

from loadbalancer import ports, redis_conf, setting_lists, unix_sockets
from loadbalancer.binaries import Binary, find_nginx, find_redis
from loadbalancer.installation_spec import InstallationSpec
from loadbalancer.nginx import configuration, configuration_files
from loadbalancer.nginx.configuration import NginxHost
from loadbalancer.nginx.remote_watch import RemoteWatch
from loadbalancer.part_kinds import Part, balancer_part, consumer_part, redis_part, replica_part
from loadbalancer.settings import BalancerSettings
from loadbalancer.topology import Balancer, RemoteReplica, Replica, Topology, address, reachable


@dataclass(frozen=True)
class Installation:
    """The parts in start order, and the watch over the addresses of remote replicas."""

    parts: tuple[Part, ...]
    remote: RemoteWatch


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


def prepare(spec: InstallationSpec) -> Installation:
    """Choose ports, resolve remote replicas, write the configuration files, and return what is to be run.

    Raises:
        BalancerError: No ports are free, or nginx rejects its configuration.
    """
    settings = spec.settings
    spec.logs.mkdir(parents=True, exist_ok=True)
    count = 1 + 2 * settings.slots + settings.balancers
    chosen = iter(ports.choose(count, taken=frozenset({settings.port, *_fixed_ports(settings)})))
    parts: list[Part] = []
    redis = spec.redis
    if redis is not None:
        socket = unix_sockets.choose_path(spec.home, "redis.sock")
        spec = replace(spec, environ={**spec.environ, "RECOLLECT_REDIS_URL": redis_conf.url(socket)})
        parts.append(redis_part(spec, (str(redis.path), str(_write_redis_conf(spec.home, socket))), socket))
    consumer_port = next(chosen)
    if spec.consumer:
        parts.append(consumer_part(spec, consumer_port))
    free = [next(chosen) for _ in range(settings.slots)]
    listening = _fixed_ports(settings) or free
    for port in _fixed_ports(settings):
        ports.require_free(settings.replicas_host, port)
    slots = [
        Replica(
            f"{'replica' if slot < settings.replicas else 'candidates'}-{slot}",
            settings.replicas_host,
            listening[slot],
            next(chosen),
        )
        for slot in range(settings.slots)
    ]
    replicas, candidates = tuple(slots[: settings.replicas]), tuple(slots[settings.replicas :])
    balancers = tuple(
        Balancer(f"nginx-{number}", settings.host, settings.port, next(chosen)) for number in range(settings.balancers)
    )
    local = Topology(replicas, balancers, candidates)

    files = [_nginx_files(spec, balancer) for balancer in balancers]

    def install(remote: tuple[RemoteReplica, ...]) -> str | None:
        for one in files:
            text = one.text(replace(local, remote=remote), settings)
            if (reason := configuration_files.replace(one.argv, one.host.run_dir, text)) is not None:
                return reason
        return None

    watch = RemoteWatch(setting_lists.remote_replicas(settings.remote_replicas), settings.resolve_every_s, install)
    topology = replace(local, remote=watch.replicas)
    # Candidates first: a list without them is degraded.
    finding, making = (("--role", "candidates"), ("--role", "ranking", "--candidates", topology.candidate_urls))
    parts += [replica_part(spec, replica, slot, finding) for slot, replica in enumerate(candidates, settings.replicas)]
    parts += [replica_part(spec, replica, slot, making if candidates else ()) for slot, replica in enumerate(replicas)]
    for one in files:
        configuration_files.install(one.argv, one.host.run_dir, one.text(topology, settings))
        parts.append(balancer_part(spec, one.argv, one.balancer, topology))
    return Installation(tuple(parts), watch)


def _fixed_ports(settings: BalancerSettings) -> list[int]:
    first = settings.replicas_port
    return [] if first is None else list(range(first, first + settings.slots))


def _write_redis_conf(home: Path, socket: Path) -> Path:
    directory = home / "redis"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "redis.conf"
    path.write_text(redis_conf.render(directory, socket), encoding="utf-8")
    return path


@dataclass(frozen=True)
class _NginxFiles:
    """The configuration of one nginx: its command, and what the rendered file depends on."""

    balancer: Balancer
    argv: tuple[str, ...]
    host: NginxHost

    def text(self, topology: Topology, settings: BalancerSettings) -> str:
        return configuration.render(topology, self.balancer, settings, self.host)


def _nginx_files(spec: InstallationSpec, balancer: Balancer) -> _NginxFiles:
    run_dir = spec.home / "run" / balancer.name
    host = configuration_files.inspect_host(spec.nginx.path, run_dir=run_dir, logs=spec.logs, models=spec.models)
    argv = configuration_files.command(spec.nginx.path, run_dir, spec.logs / f"{balancer.name}.error.log")
    return _NginxFiles(balancer, argv, host)
