"""`recollect doctor`: check the installation, one line per check. A check reads and never changes anything."""

import json
import os
from collections.abc import Callable

from loadbalancer.errors import BalancerError
from ops.checks import access, software, state
from ops.checks.finding import Finding
from ops.checks.remote_replicas import remote_replicas
from ops.options.shared_options import JsonOption
from service.config import Config, from_env
from service.errors import RecollectError
from telemetry.errors import TelemetryError

Check = Callable[[Config], Finding]

CHECKS: dict[str, Check] = {
    "python": software.python,
    "packages": software.packages,
    "names": software.names,
    "http parser": software.http_parser,
    "redis": software.redis,
    "nginx": software.nginx,
    "replicas": remote_replicas,
    "settings": state.settings,
    "state": state.home,
    "disk": state.disk,
    "port": access.port,
    "keys": access.keys,
    "key files": state.key_files,
    "tls": access.tls,
    "open files": access.file_limit,
    "live state": state.live_state,
    "model": state.model,
}


def command(*, as_json: JsonOption = False) -> int:
    """Check whether this installation is sound."""
    return doctor(from_env(os.environ), as_json=as_json)


def doctor(config: Config, *, as_json: bool) -> int:
    """Run every check and print one line each, or one JSON object.

    Args:
        config: The settings of the installation.
        as_json: Print `{"sound": bool, "findings": [{"name", "status", "sentence"}]}`.

    Returns:
        The exit code: 1 if a check failed.
    """
    findings = {name: run_check(check, config) for name, check in CHECKS.items()}
    is_sound = all(status != "fail" for status, _ in findings.values())
    if as_json:
        rows = [{"name": name, "status": status, "sentence": text} for name, (status, text) in findings.items()]
        print(json.dumps({"sound": is_sound, "findings": rows}, indent=2))
    else:
        width = max(map(len, findings))
        for name, (status, sentence) in findings.items():
            print(f"{status:<4}  {name:<{width}}  {sentence}")
    return 0 if is_sound else 1


def run_check(check: Check, config: Config) -> Finding:
    """Run one check; an error of it is a failure."""
    try:
        return check(config)
    except (RecollectError, BalancerError, TelemetryError) as error:
        return "fail", f"{str(error).rstrip('.')}."
    except OSError as error:
        return "fail", f"The check failed: {error}."
