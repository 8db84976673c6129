"""The check of the replicas of other machines, to which this machine's nginx sends, too."""

import http.client
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from loadbalancer import setting_lists
from loadbalancer.nginx.remote_watch import resolved
from loadbalancer.settings import BalancerSettings
from loadbalancer.topology import RemoteReplica, address
from ops.checks.finding import Finding
from service.config import Config
from service.declared_settings import read

_TIMEOUT_S: Final = 1.0
_AT_ONCE: Final = 32


def remote_replicas(_: Config) -> Finding:
    """Ask every address of RECOLLECT_REMOTE_REPLICAS whether a replica there is ready."""
    settings = read(BalancerSettings, os.environ)
    configured = setting_lists.remote_replicas(settings.remote_replicas)
    if not configured:
        return "ok", "RECOLLECT_REMOTE_REPLICAS names none, so nginx sends to the replicas of this machine only."
    found = {remote: resolved(remote) for remote in configured}
    faults = [f"{remote.host} cannot be resolved" for remote, replicas in found.items() if replicas is None]
    addresses = sorted({replica for replicas in found.values() for replica in replicas or ()})
    faults += _unready(addresses)
    if faults:
        return "warn", f"Of the replicas in RECOLLECT_REMOTE_REPLICAS {'; '.join(faults)}."
    return "ok", f"Replicas of other machines that are ready: {len(addresses)}, all that are named."


def _unready(addresses: Sequence[RemoteReplica]) -> list[str]:
    """Return a clause for each replica that is not ready."""
    if not addresses:
        return []
    with ThreadPoolExecutor(min(len(addresses), _AT_ONCE)) as threads:
        clauses = threads.map(_fault, addresses)
        return [clause for clause in clauses if clause is not None]


def _fault(replica: RemoteReplica) -> str | None:
    where = address(replica.host, replica.port)
    connection = http.client.HTTPConnection(replica.host, replica.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return f"{where} does not answer"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{where} is not ready ({status})"
