"""The memory available to this process, and the check that a fit has enough.

The available memory is the minimum of what remains on the machine, in every control group of this process (cgroups 1
and 2, the limits of containers), and under `ulimit -v`. The kernel kills a fit that exceeds a control group without a
message, so such a fit is refused before it begins.
"""

import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from service.errors import RunError

_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")
# cgroups 1 writes "no limit" as the largest number of whole pages.
_NO_LIMIT: Final = 1 << 60
# A float32 factor, and its copy while factors are averaged, solved for or assembled.
_FACTOR_BYTES: Final = 8
# User, item, rating and order of an interaction during a fit.
_ROW_BYTES: Final = 24


def require(name: str, config: Any, n_rows: int, n_users: int, n_items: int) -> None:
    """Refuse a fit of factors for lack of memory; a config without `n_factors`, or with none set, is not checked.

    Raises:
        RunError: Factors and interactions need more memory than is available.
    """
    n_factors = getattr(config, "n_factors", None) or 0
    needed_bytes = _FACTOR_BYTES * n_factors * (n_users + n_items) + _ROW_BYTES * n_rows
    free_bytes = available_bytes()
    if n_factors and needed_bytes > free_bytes:
        raise RunError(
            f"{name} with {n_factors} factors for {n_users:,} users and {n_items:,} items needs at least "
            f"{needed_bytes / 2**30:.1f} GiB of memory, and this process may have {free_bytes / 2**30:.1f} GiB: "
            f"take fewer factors (--set n_factors={max(1, n_factors * free_bytes // (2 * needed_bytes))}), "
            "or give it more."
        )


def available_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return the memory that this process may still allocate, from proc(5) and cgroups(7)."""
    machine = re.search(r"^MemAvailable:\s+(\d+) kB$", _text(proc / "meminfo"), re.MULTILINE)
    left = [_NO_LIMIT if machine is None else int(machine[1]) * 1024]
    left.extend(_left_in_groups(_text(proc / "self" / "cgroup"), cgroups))
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    size = re.search(r"^VmSize:\s+(\d+) kB$", _text(proc / "self" / "status"), re.MULTILINE)
    if limit != resource.RLIM_INFINITY and size is not None:
        left.append(limit - int(size[1]) * 1024)
    return max(0, min(left))


def _left_in_groups(memberships: str, cgroups: Path) -> Iterator[int]:
    """Yield the remaining memory of each control group of this process and of its parents."""
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage, cache = cgroups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit = cgroups / "memory", "memory.limit_in_bytes"
            usage, cache = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        group = base / path.lstrip("/")
        # In a container the path may be that of the host, of which only the root is mounted.
        for folder in (group, *group.parents):
            if folder == base.parent:
                break
            most, used = _number(folder / limit), _number(folder / usage)
            if most is not None and used is not None and most < _NO_LIMIT:
                stat = re.search(rf"^{cache} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                # The kernel reclaims cached pages of files.
                yield most - used + (0 if stat is None else int(stat[1]))


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
