"""A spool whose process is killed: its thread and its lock end, and nothing is written."""

from telemetry.wal.spool import Spool


def kill(spool: Spool) -> None:
    """End what the test's process shares with the spool; a killed process runs no method that could do it."""
    spool.schedule.cancel_timer()
    spool._thread.shutdown()
    spool._slot.close()
