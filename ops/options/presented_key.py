"""The API key that a command presents to a service; from a file, since local users can read command lines."""

import re
from pathlib import Path
from typing import Annotated

import typer

from service.errors import UsageError
from service.security.api_key import KEY_PATTERN

KeyFileOption = Annotated[
    Path | None, typer.Option("--key-file", help="A file with the API key to send, where the service asks for one.")
]


def read_api_key(path: Path | None) -> str | None:
    """Return the key in a file; None without a file.

    Raises:
        UsageError: The file holds no key.
    """
    if path is None:
        return None
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UsageError(f"--key-file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        text = ""
    if not re.fullmatch(KEY_PATTERN, text):
        raise UsageError(f"--key-file {path} holds no API key; recollect keys create prints one.")
    return text
