"""The kinds of parts: how each is started, probed and stopped, and its time limits."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadbalancer.installation_spec import InstallationSpec
from loadbalancer.supervision.probes import HttpProbe, Probe, RedisProbe
from loadbalancer.supervision.processes import Command
from loadbalancer.topology import Balancer, Replica, Topology

# Parts are listed in the order of their tiers and stop in the reverse order.
REDIS_TIER, CONSUMER_TIER, REPLICA_TIER, BALANCER_TIER = range(4)

# Skips the part's own check of Redis: `up` and `balance` have checked it, and a part must restart while Redis is down.
_SUPERVISED = "--supervised"
# Where the supervisor probes parts, and where they therefore listen for it, whatever the setting says.
_ADMIN_HOST = "127.0.0.1"
# Time to exit beyond the drain.
_EXIT_S = 1.0
_CONSUMER_STOP_S = 9.0
_REDIS_STOP_S = 10.0
# nginx loads nothing and listens after some 50 ms.
_NGINX_START_S = 10.0
# nginx ends its workers after worker_shutdown_timeout, 5 s.
_NGINX_STOP_S = 6.0
# Redis reads its whole append-only file before it answers.
_REDIS_START_S = 600.0


@dataclass(frozen=True)
class Part:
    """One process that the supervisor keeps alive.

    Args:
        name: Such as replica-0.
        tier: Tiers stop from the highest to the lowest.
        needs_all: Parts that must have been ready before its first start.
        needs_any: Parts of which one must have been.
        ready_within_s: A part that takes longer is killed and restarted.
        stop_within_s: A part that takes longer is killed.
        rolling: Whether a rolling restart restarts it.
        host: The address or the path of the socket that it listens on, or None.
        port: The port that it listens on, or None.
        admin_port: Its port for probes and metrics, or None.
        probe: Its readiness probe.
        watch: Its liveness probe while it is ready; None if it is not watched.
    """

    name: str
    tier: int
    command: Command
    probe: Probe
    ready_within_s: float
    stop_within_s: float
    needs_all: tuple[str, ...] = ()
    needs_any: tuple[str, ...] = ()
    rolling: bool = False
    watch: HttpProbe | None = None
    host: str | None = None
    port: int | None = None
    admin_port: int | None = None


def redis_part(spec: InstallationSpec, argv: Sequence[str], socket: Path) -> Part:
    """Return the installation's own Redis."""
    return Part(
        name="redis",
        tier=REDIS_TIER,
        command=Command(tuple(argv), spec.environ, spec.logs / "redis.out"),
        probe=RedisProbe(socket),
        ready_within_s=_REDIS_START_S,
        stop_within_s=_REDIS_STOP_S,
        host=str(socket),
    )


def consumer_part(spec: InstallationSpec, admin_port: int) -> Part:
    """Return the consumer: ready once alive, since a standby without the lease is healthy."""
    # No other installation uses this Redis, so a mark of another archive in it is out of date.
    claim = () if spec.redis is None else ("--claim",)
    return Part(
        name="consumer",
        tier=CONSUMER_TIER,
        command=_python_command(
            spec, ("consume", "--admin-port", str(admin_port), _SUPERVISED, *claim), "consumer.out"
        ),
        probe=HttpProbe(_ADMIN_HOST, admin_port, "/healthz"),
        ready_within_s=spec.settings.start_timeout_s,
        stop_within_s=_CONSUMER_STOP_S,
        needs_all=() if spec.redis is None else ("redis",),
        admin_port=admin_port,
    )


def replica_part(spec: InstallationSpec, replica: Replica, slot: int, role: Sequence[str] = ()) -> Part:
    """Return one replica: ready when its model is loaded and warm. `role` has the options of its role, if any."""
    options = ("--slot", str(slot), "--host", replica.host, "--port", str(replica.port), *role)
    arguments = ("serve", *options, "--admin-port", str(replica.admin_port), _SUPERVISED)
    if spec.insecure:
        arguments += ("--insecure",)
    return Part(
        name=replica.name,
        tier=REPLICA_TIER,
        command=_python_command(spec, arguments, f"{replica.name}.out"),
        probe=HttpProbe(_ADMIN_HOST, replica.admin_port, "/readyz"),
        ready_within_s=spec.settings.start_timeout_s,
        stop_within_s=spec.drain_s + _EXIT_S,
        needs_all=() if spec.redis is None else ("redis",),
        rolling=True,
        host=replica.host,
        port=replica.port,
        admin_port=replica.admin_port,
    )


def balancer_part(spec: InstallationSpec, argv: Sequence[str], balancer: Balancer, topology: Topology) -> Part:
    """Return one nginx; it may start when one replica is ready, and every one that finds candidates.

    It is watched, because the kernel keeps queueing connections for a frozen nginx, and no other nginx can serve those.
    The probe reaches a worker. A frozen master with a living worker stays unnoticed: clients are served, and the tasks
    of the master (new workers, reloads, new logs) wait until it is thawed, or until the worker dies too and the watch
    ends both.
    """
    settings = spec.settings
    # On the shared port the kernel would choose the nginx that gets the probe.
    probe = HttpProbe("127.0.0.1", balancer.admin_port, "/healthz")
    return Part(
        name=balancer.name,
        tier=BALANCER_TIER,
        command=Command(
            tuple(argv),
            spec.environ,
            spec.logs / f"{balancer.name}.out",
            # SIGQUIT is nginx's graceful stop; SIGTERM would cut its clients off.
            stop_signal=signal.SIGQUIT,
            # New workers use the new certificates; the old ones finish their connections.
            reload_signal=signal.SIGHUP,
            reload_files=tuple(path for path in (settings.tls_cert, settings.tls_key) if path is not None),
            logs=tuple(spec.logs / f"{balancer.name}.{kind}.log" for kind in ("access", "error")),
            log_limit_bytes=settings.nginx_log_bytes,
        ),
        probe=probe,
        ready_within_s=min(settings.start_timeout_s, _NGINX_START_S),
        stop_within_s=_NGINX_STOP_S,
        needs_all=tuple(replica.name for replica in topology.candidates),
        # Replicas of other machines may serve before one of this machine is ready.
        needs_any=() if topology.remote else tuple(replica.name for replica in topology.replicas),
        watch=probe,
        host=balancer.host,
        port=balancer.port,
        admin_port=balancer.admin_port,
    )


def _python_command(spec: InstallationSpec, arguments: tuple[str, ...], output: str) -> Command:
    environ = {**spec.environ, "RECOLLECT_ADMIN_HOST": _ADMIN_HOST}
    return Command((*spec.program, *arguments), environ, spec.logs / output, arguments=arguments)
