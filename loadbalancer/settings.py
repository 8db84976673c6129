"""The balancer's settings; `service.config.read` builds them from the environment."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path  # service.config.read resolves the annotations at run time

from loadbalancer import setting_lists
from loadbalancer.errors import BadSetting


def _meta(env: str, unit: str, doc: str) -> dict[str, str]:
    return {"env": env, "unit": unit, "doc": doc}


@dataclass(frozen=True)
class BalancerSettings:
    """What `up` and `balance` start, and how nginx treats clients and replicas."""

    host: str = field(
        default="127.0.0.1", metadata=_meta("RECOLLECT_BALANCER_HOST", "address", "Where nginx listens for clients.")
    )
    port: int = field(
        default=8080, metadata=_meta("RECOLLECT_PORT", "port", "The port on which nginx listens for clients.")
    )
    replicas: int = field(
        default=3, metadata=_meta("RECOLLECT_REPLICAS", "replicas", "How many replicas `up` and `balance` start.")
    )
    balancers: int = field(
        default=2,
        metadata=_meta(
            "RECOLLECT_BALANCERS",
            "processes",
            "How many nginx share the port, so that any one of them may die; with 1, clients wait for its restart.",
        ),
    )
    nginx: Path | None = field(
        default=None,
        metadata=_meta("RECOLLECT_NGINX", "path", "The nginx to use; without it the one on PATH, then the wheel's."),
    )
    redis_server: Path | None = field(
        default=None,
        metadata=_meta(
            "RECOLLECT_REDIS_SERVER", "path", "The redis-server to use; without it the one on PATH, then the wheel's."
        ),
    )
    workers: int = field(
        default=1, metadata=_meta("RECOLLECT_NGINX_WORKERS", "processes", "How many worker processes each nginx runs.")
    )
    list_timeout_ms: int = field(
        default=250,
        metadata=_meta(
            "RECOLLECT_LIST_TIMEOUT_MS", "ms", "How long nginx waits for one replica's list before it asks another."
        ),
    )
    list_budget_ms: int = field(
        default=900,
        metadata=_meta(
            "RECOLLECT_LIST_BUDGET_MS", "ms", "How long nginx keeps asking replicas for a list before the static one."
        ),
    )
    spares: int = field(
        default=2,
        metadata=_meta(
            "RECOLLECT_SPARES",
            "processes",
            "How many loaded processes wait to take a dead part's place, about 75 MB each; 0 for none.",
        ),
    )
    list_concurrency: int = field(
        default=16,
        metadata=_meta(
            "RECOLLECT_LIST_CONCURRENCY",
            "requests",
            "Lists that each nginx has open at one replica; when all have so many, one more is answered 503 at once.",
        ),
    )
    feedback_concurrency: int = field(
        default=32,
        metadata=_meta(
            "RECOLLECT_FEEDBACK_CONCURRENCY",
            "requests",
            "Requests that are no lists, above all events, that each nginx has open at one replica; as for lists.",
        ),
    )
    events_timeout_ms: int = field(
        default=500,
        metadata=_meta("RECOLLECT_EVENTS_TIMEOUT_MS", "ms", "How long nginx waits for one replica to accept events."),
    )
    events_budget_ms: int = field(
        default=3000,
        metadata=_meta("RECOLLECT_EVENTS_BUDGET_MS", "ms", "How long nginx keeps offering events to replicas."),
    )
    other_timeout_ms: int = field(
        default=2000,
        metadata=_meta(
            "RECOLLECT_OTHER_TIMEOUT_MS", "ms", "How long nginx waits for one replica's answer on other routes."
        ),
    )
    upstream_keepalive_s: int = field(
        default=5,
        metadata=_meta(
            "RECOLLECT_UPSTREAM_KEEPALIVE_S",
            "s",
            "When nginx closes an idle connection to a replica; must be below RECOLLECT_KEEPALIVE_TIMEOUT_S.",
        ),
    )
    client_connections: int | None = field(
        default=None,
        metadata=_meta(
            "RECOLLECT_CLIENT_CONNECTIONS",
            "connections",
            "Requests that one client address may have open at each nginx; 200 where other machines can reach nginx.",
        ),
    )
    client_requests_per_s: int | None = field(
        default=None,
        metadata=_meta(
            "RECOLLECT_CLIENT_REQUESTS_PER_S",
            "requests/s",
            "Requests per second of one client address at each nginx; 2000 where other machines can reach nginx.",
        ),
    )
    key_requests_per_s: int | None = field(
        default=None,
        metadata=_meta(
            "RECOLLECT_KEY_REQUESTS_PER_S",
            "requests/s",
            "Requests per second with one API key at each nginx; 2000 where other machines can reach nginx.",
        ),
    )
    client_burst: int = field(
        default=500,
        metadata=_meta(
            "RECOLLECT_CLIENT_BURST",
            "requests",
            "Requests one client address or API key may be ahead of its rate at each nginx.",
        ),
    )
    client_timeout_s: int = field(
        default=5,
        metadata=_meta(
            "RECOLLECT_CLIENT_TIMEOUT_S",
            "s",
            "How long a client may take for its headers, or stand still in a body; twice that in reading an answer.",
        ),
    )
    tls_cert: Path | None = field(
        default=None,
        metadata=_meta(
            "RECOLLECT_TLS_CERT",
            "path",
            "A PEM file of the certificate and its chain; with it and its key, nginx speaks TLS and HTTP/2 alone.",
        ),
    )
    tls_key: Path | None = field(
        default=None, metadata=_meta("RECOLLECT_TLS_KEY", "path", "The PEM file of the certificate's private key.")
    )
    trusted_proxies: str | None = field(
        default=None,
        metadata=_meta(
            "RECOLLECT_TRUSTED_PROXIES",
            "addresses",
            "Addresses or networks of proxies before nginx, comma separated; their X-Forwarded-For names the client.",
        ),
    )
    hosts: str | None = field(
        default=None,
        metadata=_meta(
            "RECOLLECT_HOSTS",
            "names",
            "The hosts that are served, comma separated, *.domain included; others get 421. Loopback is always served.",
        ),
    )
    cors_origins: str | None = field(
        default=None,
        metadata=_meta(
            "RECOLLECT_CORS_ORIGINS",
            "origins",
            "Origins whose pages may ask from a browser, comma separated, such as https://shop.example; * for all.",
        ),
    )
    nginx_log_bytes: int = field(
        default=64 * 1024 * 1024,
        metadata=_meta(
            "RECOLLECT_NGINX_LOG_BYTES", "bytes", "Size at which a log of nginx is set aside; one older one is kept."
        ),
    )
    start_timeout_s: float = field(
        default=60.0,
        metadata=_meta(
            "RECOLLECT_START_TIMEOUT_S", "s", "How long a part may take to get ready before it is started again."
        ),
    )

    def __post_init__(self) -> None:
        for spec, least, most in _BOUNDS:
            value = getattr(self, spec)
            if value is not None and not least <= value <= most:
                env = self.__dataclass_fields__[spec].metadata["env"]
                raise BadSetting(f"{env} must be between {least} and {most}, not {value}")
        if not self.host or any(character in _NOT_IN_AN_ADDRESS for character in self.host):
            raise BadSetting(f"RECOLLECT_BALANCER_HOST is not an address to listen on: {self.host!r}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise BadSetting("RECOLLECT_TLS_CERT and RECOLLECT_TLS_KEY are set together or not at all")
        setting_lists.proxies(self.trusted_proxies)
        setting_lists.hosts(self.hosts)
        setting_lists.origins(self.cors_origins)

    @property
    def tells_clients_apart(self) -> bool:
        """Whether clients have addresses of their own, so that limits per client make sense without being asked for."""
        return not self.loopback_only or self.trusted_proxies is not None

    @property
    def loopback_only(self) -> bool:
        """Whether clients of other machines cannot reach nginx."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            # Another name might be anything, 127.0.0.1.example included.
            return False


# The names of settings, with the least and the greatest value that works.
_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("port", 1, 65535),
    ("replicas", 1, 256),
    ("balancers", 1, 16),
    ("workers", 1, 256),
    ("list_timeout_ms", 1, 600_000),
    ("list_budget_ms", 1, 600_000),
    ("list_concurrency", 2, 100_000),
    ("feedback_concurrency", 2, 100_000),
    ("events_timeout_ms", 1, 600_000),
    ("events_budget_ms", 1, 600_000),
    ("other_timeout_ms", 1, 600_000),
    ("upstream_keepalive_s", 1, 3600),
    ("client_connections", 1, 1_000_000),
    ("client_requests_per_s", 1, 1_000_000),
    ("key_requests_per_s", 1, 1_000_000),
    ("client_burst", 0, 1_000_000),
    ("client_timeout_s", 1, 3600),
    ("start_timeout_s", 1, 86_400),
)
_NOT_IN_AN_ADDRESS = " \t\r\n;{}\"'\\$#/"
