"""The settings of a replica's HTTP server: where it listens, and how long and how much it waits for."""

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class ServerConfig:
    """The HTTP server of a replica."""

    host: Annotated[str, {"env": "RECOLLECT_HOST", "unit": "address"}, "Where a replica listens for requests."] = (
        "127.0.0.1"
    )
    port: Annotated[
        int,
        {"env": "RECOLLECT_REPLICA_PORT", "unit": "port", "least": 1, "most": 65535},
        "The port of a replica started by `recollect serve`.",
    ] = 8081
    admin_port: Annotated[
        int,
        {"env": "RECOLLECT_ADMIN_PORT", "unit": "port", "least": 1, "most": 65535},
        "The port of a replica for metrics and readiness.",
    ] = 8091
    admin_host: Annotated[
        str,
        {"env": "RECOLLECT_ADMIN_HOST", "unit": "address"},
        "Where `recollect serve` and `recollect consume` listen for probes and metrics, which ask for no API key; in a "
        "container 0.0.0.0, so that the platform reaches them. The parts of `up` and `balance` listen on 127.0.0.1.",
    ] = "127.0.0.1"
    keepalive_timeout_s: Annotated[
        float,
        {"env": "RECOLLECT_KEEPALIVE_TIMEOUT_S", "unit": "s"},
        "How long an idle connection, or one whose headers never end, stays open; must be above "
        "RECOLLECT_UPSTREAM_KEEPALIVE_S, or nginx sends requests into connections that close.",
    ] = 15.0
    body_timeout_s: Annotated[
        float, {"env": "RECOLLECT_BODY_TIMEOUT_S", "unit": "s"}, "How long a request body may take to arrive."
    ] = 2.0
    body_limit_bytes: Annotated[
        int,
        {"env": "RECOLLECT_BODY_LIMIT_BYTES", "unit": "bytes", "least": 1024, "most": 65536},
        "The largest request body, from 1 KiB to 64 KiB, the limit of nginx.",
    ] = 65536
    drain_timeout_s: Annotated[
        float,
        {"env": "RECOLLECT_DRAIN_TIMEOUT_S", "unit": "s"},
        "The longest a stopping replica waits for connections and events.",
    ] = 8.0
    list_target_s: Annotated[
        float,
        {"env": "RECOLLECT_LIST_TARGET_S", "unit": "s"},
        "How long a list may take at a replica under load; beyond it, fewer lists are admitted and more are "
        "refused with 503.",
    ] = 0.05
    feedback_target_s: Annotated[
        float,
        {"env": "RECOLLECT_FEEDBACK_TARGET_S", "unit": "s"},
        "The same for feedback, the disk included; higher, so that lists are refused first.",
    ] = 0.3
    backlog: Annotated[
        int, {"env": "RECOLLECT_BACKLOG", "unit": "connections"}, "Connections that may wait to be accepted."
    ] = 1024
