"""`recollect keys`: make, list and revoke the API keys of this installation.

Invariant: a key's text is printed once, when it is made, and stored nowhere. A change is in the security log before it
is in the key file.
"""

import dataclasses
import json
import os
import sys
import time
from typing import Annotated, Any, Final

import typer

from ops.console.table import table
from ops.options.shared_options import JsonOption
from service.config import Config, from_env
from service.errors import RunError, UsageError
from service.security import api_key as keys
from service.security import security_log
from service.security.key_file import KeyFile
from telemetry.ids import rfc3339_ms

app = typer.Typer(help="API keys and what they permit.", no_args_is_help=True, rich_markup_mode=None)

_DATE: Final = 10


@app.command()
def create(
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope", help=f"What it permits, comma separated: {', '.join(keys.SCOPES)}; admin is all of them."
        ),
    ],
    expires: Annotated[
        str | None, typer.Option("--expires", help="Its lifetime: a number with s, m, h, d or w, such as 90d.")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option("--origin", help="An origin of web pages that may use it, instead of all; repeatable."),
    ] = None,
    note: Annotated[str | None, typer.Option("--note", help="Its purpose, shown by list.")] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer reads it
) -> int:
    """Make a key and print it once; replicas accept it within a second."""
    config = _config()
    scopes = keys.parse_scopes(name.strip() for text in scope for name in text.split(",") if name.strip())
    expires_in_s = None if expires is None else keys.parse_duration_s(expires)
    origins = tuple(dict.fromkeys(keys.parse_origin(text) for text in origin or ()))
    purpose = None if note is None else keys.parse_note(note)
    with KeyFile.of(config).edit() as present:
        text, made = keys.new_key(
            scopes,
            now_s=time.time(),
            taken=[other.id for other in present],
            expires_in_s=expires_in_s,
            origins=origins,
            note=purpose,
        )
        others = len(present)
        _log_change(config, "key_create", made)
        present.append(made)
    if as_json:
        print(json.dumps({"key": text, **_described(made)}, ensure_ascii=False))
        return 0
    # Standard output has only the key, for scripts.
    print(text)
    until = "never expires" if made.expires_at is None else f"expires at {made.expires_at}"
    first = "" if others else " It is the first key: from now on every request needs one."
    print(
        f"Key {made.id} permits {', '.join(made.scopes)} and {until}. It is shown only now and stored as a digest;"
        f" running replicas accept it within a second.{first}",
        file=sys.stderr,
    )
    return 0


@app.command("list")
def list_(as_json: JsonOption = False) -> int:  # noqa: FBT002 - typer reads it
    """List every key, also revoked ones, without its secret."""
    config = _config()
    present = KeyFile.of(config).read()
    rows = [_described(one) for one in present or ()]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
    elif present is None:
        print(
            f"There are no keys in {config.home}, so requests need none; make one: recollect keys create --scope NAME."
        )
    else:
        heading = ("id", "state", "scopes", "expires", "origins", "note")
        print(table(heading, map(_row, rows), left=set(range(len(heading)))))
    return 0


@app.command()
def revoke(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids shown by list.")],
    as_json: JsonOption = False,  # noqa: FBT002 - typer reads it
) -> int:
    """Invalidate keys for good; replicas refuse them within a second."""
    config = _config()
    requested = list(dict.fromkeys(map(keys.id_in, ids)))
    file = KeyFile.of(config)
    known = {one.id for one in file.read() or ()}
    for key_id in requested:
        if key_id not in known:
            # A mistyped key is still a secret: only its id is shown.
            raise UsageError(f"There is no key {key_id[:11]!r} in {config.home}; recollect keys list shows them.")
    revoked: list[str] = []
    with file.edit() as present:
        for index, one in enumerate(present):
            if one.id in requested and one.revoked_at is None:
                present[index] = dataclasses.replace(one, revoked_at=rfc3339_ms(time.time()))
                _log_change(config, "key_revoke", one)
                revoked.append(one.id)
    if as_json:
        print(json.dumps({"revoked": revoked}))
        return 0
    for key_id in requested:
        done = "is revoked; running replicas refuse it within a second." if key_id in revoked else "was revoked before."
        print(f"Key {key_id} {done}")
    return 0


def _log_change(config: Config, action: str, one: keys.ApiKey) -> None:
    details = {"scopes": list(one.scopes), "expires_at": one.expires_at, "origins": list(one.origins)}
    try:
        security_log.append(
            config.security_dir, [security_log.new_entry(action, by="recollect keys", key=one.id, **details)]
        )
    except OSError as error:
        raise RunError(
            f"The security log in {config.security_dir} cannot be written, so no key was changed: "
            f"{error.strerror or error}."
        ) from error


def _described(one: keys.ApiKey) -> dict[str, Any]:
    record = one.record()
    del record["digest"]
    return {**record, "state": one.state(time.time())}


def _row(described: dict[str, Any]) -> tuple[str, ...]:
    return (
        described["id"],
        described["state"],
        ",".join(described["scopes"]),
        "never" if described["expires_at"] is None else described["expires_at"][:_DATE],
        ",".join(described["origins"]) or "any",
        described["note"] or "",
    )


def _config() -> Config:
    return from_env(os.environ)
