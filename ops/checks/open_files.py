"""The number of files a process may have open (setrlimit(2)): each client takes one, and one to a replica."""

import resource

WANTED = 4096
# Below this limit, the parts of an installation serve only some tens of clients.
_LOW = 1024


def raise_soft_limit() -> str | None:
    """Raise the soft limit of this process and its children to the number wanted, or to the hard limit.

    Returns:
        A warning if it is low all the same.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not is_enough(soft):
        soft = WANTED if is_enough(hard) else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if is_enough(soft) or soft >= _LOW:
        return None
    return (
        f"warning: only {soft} files may be open at once, {WANTED} are wanted: connections will be refused; "
        f"have the hard limit raised (ulimit -Hn)"
    )


def is_enough(limit: int) -> bool:
    """Return whether a limit is at least the number wanted."""
    return limit == resource.RLIM_INFINITY or limit >= WANTED
