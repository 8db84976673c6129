"""How many files a process may have open (setrlimit(2)): every connection is one, at the client's side and inside."""

import resource

WANTED = 4096
# Below this, `up` does not even get its own parts to work for some tens of clients.
_FEW = 1024


def widen() -> str | None:
    """Raise the soft limit of this process, which its children inherit, as far as it may and is useful.

    Returns:
        A sentence for the operator if it is low all the same.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not enough(soft):
        soft = WANTED if enough(hard) else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if enough(soft) or soft >= _FEW:
        return None
    return (
        f"warning: only {soft} files may be open at once, {WANTED} are wanted: connections will be refused; "
        f"have the hard limit raised (ulimit -Hn)"
    )


def enough(limit: int) -> bool:
    """Say whether a limit is as high as is useful."""
    return limit == resource.RLIM_INFINITY or limit >= WANTED
