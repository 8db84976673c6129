"""Detects renewed certificate files and reloads nginx, which reads them only then."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from loadbalancer.nginx.configuration_files import rejection_reason
from loadbalancer.supervision.disk_worker import DiskWorker
from loadbalancer.supervision.processes import Command

_POLL_EVERY_S = 2.0

_Stamp = tuple[int, int, int]


class CertificateWatch:
    """Watches the certificate files, which all nginx share. Create it before nginx first reads them.

    Args:
        nginx: The command of any one nginx; it checks the new files.
    """

    def __init__(self, nginx: Command) -> None:
        self._nginx = nginx
        self._stamps = _stamps(nginx.reload_files)

    async def run(self, disk: DiskWorker, reload: Callable[[], None], notify: Callable[[str], None]) -> None:
        """Call `reload` whenever the files change and nginx accepts them; report both outcomes to `notify`."""
        while True:
            await asyncio.sleep(_POLL_EVERY_S)
            found = await disk.submit(lambda: _stamps(self._nginx.reload_files))
            if found == self._stamps:
                continue
            self._stamps = found
            reason = await disk.submit(lambda: rejection_reason(self._nginx.argv))
            if reason is None:
                reload()
                notify("nginx loads the new certificate.")
            else:
                # Certificate and key are replaced one after the other; the second change is checked again.
                notify(f"nginx rejects the new certificate and keeps the old one: {reason}.")


def _stamps(paths: Sequence[Path]) -> tuple[_Stamp | None, ...]:
    return tuple(map(_stamp, paths))


def _stamp(path: Path) -> _Stamp | None:
    """Return a value that changes when a file is edited or replaced; None if the file is missing."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
