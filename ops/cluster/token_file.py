"""The token of a cluster. A holder of the token can run code on every machine of the cluster."""

import os
import secrets
from pathlib import Path
from typing import Final

from service.config import Config
from service.errors import UsageError
from telemetry.errors import KeyFileError
from telemetry.secret_file import read_key

_TOKEN_BYTES: Final = 32


def token_path(config: Config) -> Path:
    """Return where the token is: RECOLLECT_CLUSTER_TOKEN_FILE, or `cluster/token` in the home directory."""
    return config.cluster_token_file or config.cluster_dir / "token"


def require_token(config: Config) -> Path:
    """Return the path of the token.

    Raises:
        UsageError: There is none, or it is open to other users or malformed.
    """
    path = token_path(config)
    if not path.exists():
        raise UsageError(
            f"There is no token of a cluster in {path}: copy it from the machine of the head, where "
            "`recollect cluster head` made it."
        )
    try:
        token = read_key(path, "token")
    except KeyFileError as error:
        raise UsageError(str(error)) from None
    if not token.strip().isalnum():
        raise UsageError(f"{path} is no token of a cluster: it holds more than letters and digits.")
    return path


def make_token(config: Config) -> Path:
    """Return the path of the token, which is made if there is none.

    Raises:
        UsageError: As in `require_token`.
    """
    path = token_path(config)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return require_token(config)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(_TOKEN_BYTES))
        file.flush()
        os.fsync(file.fileno())
    return path
