"""Resolves the names of remote replicas again and again, and has nginx use the addresses that they have now.

Invariant: a name that cannot be resolved keeps the addresses that it had. A name service that is away therefore takes
no replica out of service; addresses that are gone cost a failed attempt until nginx leaves them out for a while.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from functools import partial

from loadbalancer.supervision.disk_worker import DiskWorker
from loadbalancer.topology import RemoteReplica, address


class RemoteWatch:
    """Knows the addresses behind names of remote replicas.

    Args:
        configured: The replicas as configured, with names or addresses.
        every_s: The pause between two resolutions.
        install: Writes the configurations of all nginx for these addresses; returns why nginx rejects them, or None. It
            may raise OSError, as on a full disk: it is called again after the pause.
        resolve: Returns all addresses of a replica's host, or None if it cannot be resolved now.
    """

    def __init__(
        self,
        configured: Sequence[RemoteReplica],
        every_s: float,
        install: Callable[[tuple[RemoteReplica, ...]], str | None],
        resolve: Callable[[RemoteReplica], frozenset[RemoteReplica] | None] | None = None,
    ) -> None:
        self._every_s = every_s
        self._install = install
        self._resolve = resolved if resolve is None else resolve
        self._addresses = {remote: self._resolve(remote) for remote in configured}
        self._names = [remote for remote in configured if not _is_address(remote.host)]

    @property
    def replicas(self) -> tuple[RemoteReplica, ...]:
        """The addresses that were last known, sorted, each once."""
        return tuple(sorted({replica for found in self._addresses.values() for replica in found or ()}))

    async def run(self, reload: Callable[[], None], notify: Callable[[str], None]) -> None:
        """Resolve the names for ever; on a change write the configurations, call `reload`, and report to `notify`."""
        if not self._names:
            return
        # A resolver may take many seconds, and must delay no other work.
        resolver = DiskWorker()
        # None after a failure: some nginx may have the new file and others the old one.
        installed: tuple[RemoteReplica, ...] | None = self.replicas
        failure: str | None = None
        missing = {remote for remote in self._names if self._addresses[remote] is None}
        for remote in sorted(missing):
            notify(self._unresolved(remote))
        while True:
            await asyncio.sleep(self._every_s)
            for remote in self._names:
                found = await resolver.submit(partial(self._resolve, remote))
                if found is None:
                    if remote not in missing:
                        notify(self._unresolved(remote))
                    missing.add(remote)
                    continue
                missing.discard(remote)
                self._addresses[remote] = found
            if (now := self.replicas) == installed:
                continue
            try:
                reason = await resolver.submit(partial(self._install, now))
                problem = None if reason is None else f"nginx rejects the new addresses of replicas: {reason}"
            except OSError as error:
                problem = f"The new addresses of replicas cannot be written for nginx: {error.strerror or error}"
            if problem is not None:
                if problem != failure:
                    notify(f"{problem}. The old ones stay in use, and the new ones are tried again.")
                installed, failure = None, problem
                continue
            installed, failure = now, None
            reload()
            listed = ", ".join(address(replica.host, replica.port) for replica in now)
            notify(f"nginx now sends to {len(now)} replicas of other machines: {listed}.")

    def _unresolved(self, remote: RemoteReplica) -> str:
        consequence = "its last addresses stay in use" if self._addresses[remote] else "nginx sends it no requests"
        return f"{remote.host} of RECOLLECT_REMOTE_REPLICAS cannot be resolved now; {consequence}."


def resolved(remote: RemoteReplica) -> frozenset[RemoteReplica] | None:
    """Return all addresses of a replica's host, or None if it cannot be resolved now."""
    try:
        found = socket.getaddrinfo(remote.host, remote.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    # nginx cannot express the zone of a link-local address.
    return frozenset(RemoteReplica(str(where[0]), remote.port) for *_, where in found if "%" not in str(where[0]))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
