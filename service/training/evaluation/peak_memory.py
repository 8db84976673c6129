"""The peak resident memory of this process between two points in time (Linux's high-water mark)."""

import re
import resource
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def reset_peak() -> None:
    """Reset the high-water mark; without permission it stays that of the whole run."""
    try:
        _CLEAR_REFS.write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return


def peak_bytes() -> int:
    """Return the most resident memory since `reset_peak`, in bytes."""
    try:
        match = _PEAK.search(_STATUS.read_text(encoding="ascii"))
    except OSError:
        match = None
    return 1024 * (int(match[1]) if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
