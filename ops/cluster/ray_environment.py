"""The environment variables of Ray, for the processes of a machine and for commands that drive a cluster (pure)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

# A machine counts as lost after as many unanswered checks, and its tasks are done elsewhere. Ray's own values wait five
# minutes for connections to a machine that has no power.
_LOST_AFTER_CHECKS: Final = 5
_CHECK_EVERY_MS: Final = 1000
_ANSWER_WITHIN_MS: Final = 2000
_KEEPALIVE_EVERY_MS: Final = 5000
_FIND_WITHIN_S: Final = 15
# Then a machine's processes and commands end, because nothing but a new head could give them work.
_HEAD_AWAY_S: Final = 20
# They would win over the file.
_NOT_INHERITED: Final = ("RAY_AUTH_TOKEN", "RAY_ADDRESS", "RAY_NAMESPACE", "RAY_RUNTIME_ENV_HOOK")


def driver_environment(token: Path) -> dict[str, str]:
    """Return the variables of a process that connects to a cluster.

    Args:
        token: The file of the token.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Of values that were given up, such as after the failure of another task.
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",
        # How long to look for this machine among those of the cluster, and for the head.
        "RAY_gcs_server_request_timeout_seconds": str(_FIND_WITHIN_S),
        "RAY_py_gcs_connect_timeout_s": str(_FIND_WITHIN_S),
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(_HEAD_AWAY_S),
        "RAY_grpc_client_keepalive_time_ms": str(_KEEPALIVE_EVERY_MS),
        "RAY_grpc_client_keepalive_timeout_ms": str(_KEEPALIVE_EVERY_MS),
    }


def node_environment(environ: Mapping[str, str], token: Path, interface: str) -> dict[str, str]:
    """Return the whole environment of a machine's processes, which workers inherit.

    Args:
        environ: That of the command.
        token: The file of the token.
        interface: The network interface at which the others reach this machine; gloo would take the one of the host
            name, which often is the loopback.
    """
    kept = {name: value for name, value in environ.items() if name not in _NOT_INHERITED}
    return {
        **kept,
        **driver_environment(token),
        "RAY_health_check_initial_delay_ms": str(_ANSWER_WITHIN_MS),
        "RAY_health_check_period_ms": str(_CHECK_EVERY_MS),
        "RAY_health_check_timeout_ms": str(_ANSWER_WITHIN_MS),
        "RAY_health_check_failure_threshold": str(_LOST_AFTER_CHECKS),
        "GLOO_SOCKET_IFNAME": interface,
        # A worker has one core.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
