"""The specification of an installation: its programs, folders and settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadbalancer.binaries import Binary
from loadbalancer.settings import BalancerSettings


@dataclass(frozen=True)
class InstallationSpec:
    """The programs, folders and settings of one installation.

    Args:
        home: The home directory, absolute.
        logs: The folder of logs, absolute.
        models: The folder with popular.txt and popular.json.
        program: The start of every Python part's argv, to which its verb and options are added.
        environ: The environment of every part, with RECOLLECT_HOME and RECOLLECT_LOGS.
        redis: The redis-server to run, or None if Redis runs elsewhere.
        consumer: Whether to run the consumer.
        drain_s: The longest drain of a replica.
        insecure: Whether replicas may listen beyond this machine without API keys.
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
    insecure: bool = False
