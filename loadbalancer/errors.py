"""Every error this package raises, declared once.

::

    BalancerError                   one clear sentence; `exit_code` is what a command ends with
    ├── BadSetting            (2)   a setting is outside what it may be
    ├── BinaryMissing         (1)   no redis-server or nginx that is new enough
    ├── ConfigurationRefused  (1)   `nginx -t` refuses what we rendered
    ├── AlreadyRunning        (1)   another process holds this home directory
    ├── NotRunning            (1)   nothing runs in this home directory
    ├── PortTaken             (1)   somebody else listens where we should, or no port is free
    ├── LeftoverAlive         (1)   a process of an earlier run cannot be ended
    ├── PartFailed            (1)   a part did not come up
    ├── RestartFailed         (1)   a rolling restart did not finish in time, or cannot go on
    └── ReloadFailed          (1)   nginx did not take its new files in time
"""

from typing import ClassVar


class BalancerError(Exception):
    """The root; its text is one sentence for the person who reads it."""

    exit_code: ClassVar[int] = 1


class BadSetting(BalancerError):
    """A setting is outside what it may be."""

    exit_code = 2


class BinaryMissing(BalancerError):
    """No redis-server or nginx that is new enough."""


class ConfigurationRefused(BalancerError):
    """`nginx -t` refuses what we rendered."""


class AlreadyRunning(BalancerError):
    """Another process holds this home directory."""


class NotRunning(BalancerError):
    """Nothing runs in this home directory."""


class PortTaken(BalancerError):
    """Somebody else listens where we should, or no port is free."""


class LeftoverAlive(BalancerError):
    """A process of an earlier run cannot be ended."""


class PartFailed(BalancerError):
    """A part did not come up."""


class RestartFailed(BalancerError):
    """A rolling restart did not finish in time."""


class ReloadFailed(BalancerError):
    """Some nginx did not take its new files in time."""
