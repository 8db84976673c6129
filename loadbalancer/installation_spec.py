"""What an installation consists of, as a value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadbalancer.binaries import Binary
from loadbalancer.settings import BalancerSettings


@dataclass(frozen=True)
class InstallationSpec:
    """What to run, and where.

    Args:
        home: The home directory, absolute.
        logs: The folder of logs, absolute.
        models: The folder with popular.txt and popular.json.
        program: The start of every Python part's argv, to which its verb and options are added.
        environ: The environment of every part, RECOLLECT_HOME and the like already in it.
        redis: The redis-server to run, or None if Redis runs elsewhere.
        consumer: Whether to run the consumer.
        drain_s: The longest drain of a replica.
    """

    settings: BalancerSettings
    home: Path
    logs: Path
    models: Path
    program: Sequence[str]
    environ: Mapping[str, str]
    nginx: Binary
    redis: Binary | None
    consumer: bool
    drain_s: float
