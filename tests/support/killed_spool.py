"""A spool whose process is killed: its thread and its lock end, and nothing is written."""

from telemetry.wal.spool import Spool


def kill(spool: Spool) -> None:
    """End what a test's process shares with the spool, as the kernel does."""
    spool.schedule.cancel_timer()
    spool._thread.shutdown()
    spool._slot.close()
