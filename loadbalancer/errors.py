"""Every error that this package raises. `exit_code` is the exit status of a command that it ends."""

from typing import ClassVar


class BalancerError(Exception):
    """The root; its text is one sentence for the operator."""

    exit_code: ClassVar[int] = 1


class BadSetting(BalancerError):
    """A setting is out of range or malformed."""

    exit_code = 2


class BinaryMissing(BalancerError):
    """No redis-server or nginx is new enough."""


class ConfigurationRefused(BalancerError):
    """`nginx -t` rejects the rendered configuration."""


class AlreadyRunning(BalancerError):
    """Another process holds this home directory."""


class NotRunning(BalancerError):
    """Nothing runs in this home directory."""


class PortTaken(BalancerError):
    """Another process listens on the port, or no port is free."""


class LeftoverAlive(BalancerError):
    """A process of an earlier run cannot be ended."""


class PartFailed(BalancerError):
    """A part did not come up."""


class RestartFailed(BalancerError):
    """A rolling restart did not finish in time, or cannot go on."""


class ReloadFailed(BalancerError):
    """An nginx did not load its new files in time."""
