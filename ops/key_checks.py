"""Where an installation can be reached, and whether its own replicas check the API keys there."""

from loadbalancer import setting_lists
from loadbalancer.settings import BalancerSettings
from service.security import exposure


def are_elsewhere(settings: BalancerSettings) -> bool:
    """Whether nginx runs alone before replicas of other machines, which check the keys themselves.

    A replica that listens on loopback, where it asks for no keys, is none of those.
    """
    remote = setting_lists.remote_replicas(settings.remote_replicas)
    return not settings.replicas and not any(exposure.is_loopback(replica.host) for replica in remote)


def listeners(settings: BalancerSettings) -> dict[str, tuple[str, int]]:
    """Return the hosts and ports at which nginx and its replicas listen, by the variable of the host."""
    return {
        "RECOLLECT_BALANCER_HOST": (settings.host, settings.port),
        "RECOLLECT_REPLICAS_HOST": (settings.replicas_host, settings.replicas_port or settings.port),
    }
