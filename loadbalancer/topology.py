"""Who is there: the replicas and the balancers in front of them, as values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Replica:
    """One replica: where it serves, and where it answers its operators."""

    name: str
    host: str
    port: int
    admin_port: int


@dataclass(frozen=True)
class Balancer:
    """One nginx master: the address clients use, which all share, and the loopback port that is its own."""

    name: str
    host: str
    port: int
    admin_port: int


@dataclass(frozen=True)
class Topology:
    """Every balancer sends to every replica."""

    replicas: tuple[Replica, ...]
    balancers: tuple[Balancer, ...]


def address(host: str, port: int) -> str:
    """Return host:port, with an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(host: str) -> str:
    """Return the address at which a listener on `host` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}.get(host, host)  # noqa: S104  # compared, not bound
