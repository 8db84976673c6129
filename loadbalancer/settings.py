"""The balancer's settings; `service.declared_settings.read` builds them from the environment."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path  # service.declared_settings.read resolves the annotations at run time
from typing import Annotated

from loadbalancer import setting_lists
from loadbalancer.errors import BadSetting


@dataclass(frozen=True)
class BalancerSettings:
    """The parts that `up` and `balance` start, and the limits of nginx for clients and replicas."""

    host: Annotated[str, {"env": "RECOLLECT_BALANCER_HOST", "unit": "address"}, "Where nginx listens for clients."] = (
        "127.0.0.1"
    )
    port: Annotated[
        int,
        {"env": "RECOLLECT_PORT", "unit": "port", "least": 1, "most": 65535},
        "The port on which nginx listens for clients.",
    ] = 8080
    replicas: Annotated[
        int,
        {"env": "RECOLLECT_REPLICAS", "unit": "replicas", "least": 0, "most": 256},
        "How many replicas `up` and `balance` start; with 0, `balance` is nginx alone before those of other machines.",
    ] = 3
    replicas_host: Annotated[
        str,
        {"env": "RECOLLECT_REPLICAS_HOST", "unit": "address"},
        "Where the replicas of `up` and `balance` listen; an address of this machine lets others' nginx reach them.",
    ] = "127.0.0.1"
    replicas_port: Annotated[
        int | None,
        {"env": "RECOLLECT_REPLICAS_PORT", "unit": "port", "least": 1, "most": 65280},
        "The port of the first replica of `up` and `balance`, the next ones following; without it any that are free.",
    ] = None
    remote_replicas: Annotated[
        str | None,
        {"env": "RECOLLECT_REMOTE_REPLICAS", "unit": "addresses"},
        "Replicas of other machines that nginx also sends to, HOST:PORT, comma separated; a name means all its "
        "addresses.",
    ] = None
    resolve_every_s: Annotated[
        float,
        {"env": "RECOLLECT_RESOLVE_EVERY_S", "unit": "s", "least": 0.1, "most": 3600},
        "How often names in RECOLLECT_REMOTE_REPLICAS are resolved again.",
    ] = 2.0
    candidates: Annotated[
        int,
        {"env": "RECOLLECT_CANDIDATES", "unit": "replicas", "least": 0, "most": 256},
        "How many more replicas `up` and `balance` start that find candidates for the others; with 0, each does "
        "all the work of a list.",
    ] = 0
    balancers: Annotated[
        int,
        {"env": "RECOLLECT_BALANCERS", "unit": "processes", "least": 1, "most": 16},
        "How many nginx share the port, so that any one of them may be killed; with 1, clients wait for its restart.",
    ] = 2
    nginx: Annotated[
        Path | None,
        {"env": "RECOLLECT_NGINX", "unit": "path"},
        "The nginx to use; without it the one on PATH, then the wheel's.",
    ] = None
    redis_server: Annotated[
        Path | None,
        {"env": "RECOLLECT_REDIS_SERVER", "unit": "path"},
        "The redis-server to use; without it the one on PATH, then the wheel's.",
    ] = None
    workers: Annotated[
        int,
        {"env": "RECOLLECT_NGINX_WORKERS", "unit": "processes", "least": 1, "most": 256},
        "How many worker processes each nginx runs.",
    ] = 1
    list_timeout_ms: Annotated[
        int,
        {"env": "RECOLLECT_LIST_TIMEOUT_MS", "unit": "ms", "least": 1, "most": 600_000},
        "How long nginx waits for one replica's list before it asks another.",
    ] = 250
    list_budget_ms: Annotated[
        int,
        {"env": "RECOLLECT_LIST_BUDGET_MS", "unit": "ms", "least": 1, "most": 600_000},
        "How long nginx keeps asking replicas for a list before the static one.",
    ] = 900
    spares: Annotated[
        int,
        {"env": "RECOLLECT_SPARES", "unit": "processes", "least": 0, "most": 64},
        "How many spare processes wait to take the place of a part that exits, about 75 MB each; 0 for none.",
    ] = 2
    list_concurrency: Annotated[
        int,
        {"env": "RECOLLECT_LIST_CONCURRENCY", "unit": "requests", "least": 2, "most": 100_000},
        "Lists that each nginx has open at one replica; when all replicas are at the bound, one more is "
        "refused with 503 at once.",
    ] = 16
    feedback_concurrency: Annotated[
        int,
        {"env": "RECOLLECT_FEEDBACK_CONCURRENCY", "unit": "requests", "least": 2, "most": 100_000},
        "Requests other than lists, mostly events, that each nginx has open at one replica; refused beyond "
        "it, as lists are.",
    ] = 32
    events_timeout_ms: Annotated[
        int,
        {"env": "RECOLLECT_EVENTS_TIMEOUT_MS", "unit": "ms", "least": 1, "most": 600_000},
        "How long nginx waits for one replica to accept events.",
    ] = 500
    events_budget_ms: Annotated[
        int,
        {"env": "RECOLLECT_EVENTS_BUDGET_MS", "unit": "ms", "least": 1, "most": 600_000},
        "How long nginx keeps offering events to replicas.",
    ] = 3000
    other_timeout_ms: Annotated[
        int,
        {"env": "RECOLLECT_OTHER_TIMEOUT_MS", "unit": "ms", "least": 1, "most": 600_000},
        "How long nginx waits for one replica's answer on other routes.",
    ] = 2000
    upstream_keepalive_s: Annotated[
        int,
        {"env": "RECOLLECT_UPSTREAM_KEEPALIVE_S", "unit": "s", "least": 1, "most": 3600},
        "When nginx closes an idle connection to a replica; must be below RECOLLECT_KEEPALIVE_TIMEOUT_S.",
    ] = 5
    client_connections: Annotated[
        int | None,
        {"env": "RECOLLECT_CLIENT_CONNECTIONS", "unit": "connections", "least": 1, "most": 1_000_000},
        "Requests that one client address may have open at each nginx; 200 where other machines can reach nginx.",
    ] = None
    client_requests_per_s: Annotated[
        int | None,
        {"env": "RECOLLECT_CLIENT_REQUESTS_PER_S", "unit": "requests/s", "least": 1, "most": 1_000_000},
        "Requests per second of one client address at each nginx; 2000 where other machines can reach nginx.",
    ] = None
    key_requests_per_s: Annotated[
        int | None,
        {"env": "RECOLLECT_KEY_REQUESTS_PER_S", "unit": "requests/s", "least": 1, "most": 1_000_000},
        "Requests per second with one API key at each nginx; 2000 where other machines can reach nginx.",
    ] = None
    client_burst: Annotated[
        int,
        {"env": "RECOLLECT_CLIENT_BURST", "unit": "requests", "least": 0, "most": 1_000_000},
        "Requests that one client address or API key may be ahead of its rate at each nginx.",
    ] = 500
    client_timeout_s: Annotated[
        int,
        {"env": "RECOLLECT_CLIENT_TIMEOUT_S", "unit": "s", "least": 1, "most": 3600},
        "How long a client may take for its headers, or stand still in a body; twice that in reading an answer.",
    ] = 5
    tls_cert: Annotated[
        Path | None,
        {"env": "RECOLLECT_TLS_CERT", "unit": "path"},
        "A PEM file of the certificate and its chain; with it and its key, nginx accepts TLS only, with HTTP/2.",
    ] = None
    tls_key: Annotated[
        Path | None, {"env": "RECOLLECT_TLS_KEY", "unit": "path"}, "The PEM file of the certificate's private key."
    ] = None
    trusted_proxies: Annotated[
        str | None,
        {"env": "RECOLLECT_TRUSTED_PROXIES", "unit": "addresses"},
        "Addresses or networks of proxies before nginx, comma separated; their X-Forwarded-For names the client.",
    ] = None
    hosts: Annotated[
        str | None,
        {"env": "RECOLLECT_HOSTS", "unit": "names"},
        "The hosts that are served, comma separated, *.domain included; others get 421. Loopback is always served.",
    ] = None
    cors_origins: Annotated[
        str | None,
        {"env": "RECOLLECT_CORS_ORIGINS", "unit": "origins"},
        "Origins whose pages may send browser requests, comma separated, such as https://shop.example; * for all.",
    ] = None
    nginx_log_bytes: Annotated[
        int,
        {"env": "RECOLLECT_NGINX_LOG_BYTES", "unit": "bytes"},
        "Size at which a log of nginx is rotated; one older log is kept.",
    ] = 64 * 1024 * 1024
    start_timeout_s: Annotated[
        float,
        {"env": "RECOLLECT_START_TIMEOUT_S", "unit": "s", "least": 1, "most": 86_400},
        "How long a part may take to get ready before it is started again.",
    ] = 60.0

    def __post_init__(self) -> None:
        for name, host in (("RECOLLECT_BALANCER_HOST", self.host), ("RECOLLECT_REPLICAS_HOST", self.replicas_host)):
            if not host or any(character in _NOT_IN_AN_ADDRESS for character in host):
                raise BadSetting(f"{name} is not an address to listen on: {host!r}.")
        if self.replicas_port is None and not _is_loopback(self.replicas_host):
            raise BadSetting("RECOLLECT_REPLICAS_HOST is for other machines, which need RECOLLECT_REPLICAS_PORT, too.")
        if not self.replicas and not setting_lists.remote_replicas(self.remote_replicas):
            raise BadSetting(
                "RECOLLECT_REPLICAS is 0, so that nginx needs replicas of other machines: RECOLLECT_REMOTE_REPLICAS."
            )
        if not self.replicas and self.candidates:
            raise BadSetting("Replicas that find candidates need others that make the lists: RECOLLECT_REPLICAS is 0.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise BadSetting("RECOLLECT_TLS_CERT and RECOLLECT_TLS_KEY are set together or not at all.")
        setting_lists.proxies(self.trusted_proxies)
        setting_lists.hosts(self.hosts)
        setting_lists.origins(self.cors_origins)
        setting_lists.remote_replicas(self.remote_replicas)

    @property
    def slots(self) -> int:
        """How many replicas of any role there are, each with a telemetry slot."""
        return self.replicas + self.candidates

    @property
    def distinguishes_clients(self) -> bool:
        """Whether clients have addresses of their own, so that limits per client apply by default."""
        return not self.loopback_only or self.trusted_proxies is not None

    @property
    def loopback_only(self) -> bool:
        """Whether only this machine can reach nginx; as `service.security.exposure.is_loopback`."""
        return _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name may resolve to any address, even 127.0.0.1.example.
        return False


_NOT_IN_AN_ADDRESS = " \t\r\n;{}\"'\\$#/"
