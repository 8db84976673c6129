"""The replicas and the balancers in front of them, as values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Replica:
    """One replica: the address of its API, and the port of its probes and metrics."""

    name: str
    host: str
    port: int
    admin_port: int


@dataclass(frozen=True, order=True)
class RemoteReplica:
    """The address of a replica that another machine runs."""

    host: str
    port: int


@dataclass(frozen=True)
class Balancer:
    """One nginx master: the clients' address, which all share, and a loopback port of its own for probes."""

    name: str
    host: str
    port: int
    admin_port: int


@dataclass(frozen=True)
class Topology:
    """Every balancer sends to every replica, the remote ones included.

    With `candidates`, these replicas find candidates and serve the items, and the other ones make the lists.
    """

    replicas: tuple[Replica, ...]
    balancers: tuple[Balancer, ...]
    candidates: tuple[Replica, ...] = ()
    remote: tuple[RemoteReplica, ...] = ()

    @property
    def candidate_urls(self) -> str:
        """The addresses of the replicas that find candidates, as `recollect serve --candidates` takes them."""
        return ",".join(f"http://{address(reachable(replica.host), replica.port)}" for replica in self.candidates)


def address(host: str, port: int) -> str:
    """Return host:port, with an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(host: str) -> str:
    """Return the address at which this machine reaches a listener on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}.get(host, host)  # noqa: S104  # compared, not bound
