"""What the supervisor has to know about each kind of part, and where its time limits come from."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadbalancer.binaries import Binary
from loadbalancer.probes import HttpProbe, Probe, RedisProbe
from loadbalancer.processes import Command
from loadbalancer.settings import BalancerSettings
from loadbalancer.topology import Balancer, Replica

# Parts start in the order of their tiers and stop in the reverse order.
REDIS_TIER, CONSUMER_TIER, REPLICA_TIER, BALANCER_TIER = range(4)

# Who starts a part has looked at Redis; what is wrong with it later must not keep a part from starting again.
_SUPERVISED = "--supervised"
# How much longer than its drain a replica may take to leave.
_LEAVE_S = 1.0
_CONSUMER_STOP_S = 9.0
_REDIS_STOP_S = 10.0
# nginx has nothing to load: it listens after some 50 ms.
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
        tier: Its place in the order of starting and stopping.
        needs_all: Parts that must be ready before its first start.
        needs_any: Parts of which one must be.
        ready_within_s: A part that takes longer is killed and started again.
        stop_within_s: A part that takes longer to stop is killed.
        rolling: Whether a rolling restart restarts it.
        host: Where it listens, an address or the path of a socket; or None.
        port: Where it listens, or None.
        admin_port: Where it answers its operators, or None.
        command: How to start it.
        probe: How to ask whether it is ready.
        watch: How to ask, as long as it is ready, whether it is frozen; None for a part that is not watched.
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


def redis_part(binary: Binary, config: Path, socket: Path, logs: Path, environ: Mapping[str, str]) -> Part:
    """Return the installation's own Redis."""
    return Part(
        name="redis",
        tier=REDIS_TIER,
        command=Command((str(binary.path), str(config)), environ, logs / "redis.out"),
        probe=RedisProbe(socket),
        ready_within_s=_REDIS_START_S,
        stop_within_s=_REDIS_STOP_S,
        host=str(socket),
    )


def consumer_part(
    argv: Sequence[str],
    admin_port: int,
    logs: Path,
    environ: Mapping[str, str],
    *,
    settings: BalancerSettings,
    redis: bool,
) -> Part:
    """Return the telemetry consumer: ready once alive, for one that stands by while another holds the lease is well."""
    return Part(
        name="consumer",
        tier=CONSUMER_TIER,
        command=_python_command(
            argv,
            # Its own Redis has no other user, whatever archive was here before.
            ("consume", "--admin-port", str(admin_port), _SUPERVISED, *(("--claim",) if redis else ())),
            environ,
            logs / "consumer.out",
        ),
        probe=HttpProbe("127.0.0.1", admin_port, "/healthz"),
        ready_within_s=settings.start_timeout_s,
        stop_within_s=_CONSUMER_STOP_S,
        needs_all=("redis",) if redis else (),
        admin_port=admin_port,
    )


def replica_part(
    argv: Sequence[str],
    replica: Replica,
    slot: int,
    logs: Path,
    environ: Mapping[str, str],
    *,
    settings: BalancerSettings,
    redis: bool,
    drain_s: float,
) -> Part:
    """Return one replica: ready when its model is loaded and warm; `drain_s` is the longest it takes to stop."""
    options = ("--slot", str(slot), "--host", replica.host, "--port", str(replica.port))
    return Part(
        name=replica.name,
        tier=REPLICA_TIER,
        command=_python_command(
            argv,
            ("serve", *options, "--admin-port", str(replica.admin_port), _SUPERVISED),
            environ,
            logs / f"{replica.name}.out",
        ),
        probe=HttpProbe("127.0.0.1", replica.admin_port, "/readyz"),
        ready_within_s=settings.start_timeout_s,
        stop_within_s=drain_s + _LEAVE_S,
        needs_all=("redis",) if redis else (),
        rolling=True,
        host=replica.host,
        port=replica.port,
        admin_port=replica.admin_port,
    )


def balancer_part(
    argv: Sequence[str],
    balancer: Balancer,
    replicas: Sequence[Replica],
    logs: Path,
    environ: Mapping[str, str],
    *,
    settings: BalancerSettings,
) -> Part:
    """Return one nginx; it may start when one replica is ready.

    Its kernel queue goes on taking connections while it is frozen, which the other nginx cannot see or help, so it is
    watched. What the watch sees is the worker. A frozen master whose worker lives goes unseen: clients are served, and
    what only a master does waits for it (a new worker, a reload, new logs) until somebody thaws it, or until its worker
    dies too, when nobody answers and the watch ends both.
    """
    # Not the shared port, where the kernel decides who of them is asked.
    probe = HttpProbe("127.0.0.1", balancer.admin_port, "/healthz")
    return Part(
        name=balancer.name,
        tier=BALANCER_TIER,
        # SIGQUIT is nginx's graceful stop; SIGTERM would cut its clients off.
        command=Command(
            tuple(argv),
            environ,
            logs / f"{balancer.name}.out",
            stop_signal=signal.SIGQUIT,
            # With the same configuration and new certificates: new workers take over, and the old ones serve what they
            # have open.
            reload_signal=signal.SIGHUP,
            reload_files=tuple(path for path in (settings.tls_cert, settings.tls_key) if path is not None),
            logs=tuple(logs / f"{balancer.name}.{kind}.log" for kind in ("access", "error")),
            log_limit_bytes=settings.nginx_log_bytes,
        ),
        probe=probe,
        ready_within_s=min(settings.start_timeout_s, _NGINX_START_S),
        stop_within_s=_NGINX_STOP_S,
        needs_any=tuple(replica.name for replica in replicas),
        watch=probe,
        host=balancer.host,
        port=balancer.port,
        admin_port=balancer.admin_port,
    )


def _python_command(
    program: Sequence[str], words: tuple[str, ...], environ: Mapping[str, str], output: Path
) -> Command:
    """A part that is our own program: a spare can become it."""
    return Command((*program, *words), environ, output, words=words)
