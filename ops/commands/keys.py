"""`recollect keys`: make, list and revoke the API keys of this installation.

Invariant: a key's text is printed once, when it is made, and kept nowhere. What changes keys is in the security log
before it is in the key file.
"""

import dataclasses
import json
import os
import sys
import time
from typing import Annotated, Any, Final

import typer

from ops.console.table import table
from service.config import Config, from_env
from service.errors import RunError, UsageError
from service.security import api_key as keys
from service.security import security_log
from service.security.key_file import KeyFile
from telemetry.ids import rfc3339_ms

app = typer.Typer(help="API keys: who may call what.", no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")]
_DATE: Final = 10


@app.command()
def create(
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope", help=f"What it opens, comma separated: {', '.join(keys.SCOPES)}; admin is all of them."
        ),
    ],
    expires: Annotated[
        str | None, typer.Option("--expires", help="How long it is valid: a number with s, m, h, d or w, such as 90d.")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option("--origin", help="The only origin of web pages that may use it; may be given again."),
    ] = None,
    note: Annotated[str | None, typer.Option("--note", help="What it is for, shown by list.")] = None,
    as_json: Json = False,  # noqa: FBT002 - typer reads it
) -> int:
    """Make a key and print it, this once; replicas take it within a second."""
    config = _config()
    scopes = keys.parse_scopes(name.strip() for text in scope for name in text.split(",") if name.strip())
    expires_in_s = None if expires is None else keys.parse_duration_s(expires)
    origins = tuple(dict.fromkeys(keys.parse_origin(text) for text in origin or ()))
    described = None if note is None else keys.parse_note(note)
    with KeyFile(config.security_dir).edit() as present:
        text, made = keys.new_key(
            scopes,
            now_s=time.time(),
            taken=[other.id for other in present],
            expires_in_s=expires_in_s,
            origins=origins,
            note=described,
        )
        others = len(present)
        _enter(config, "key_create", made)
        present.append(made)
    if as_json:
        print(json.dumps({"key": text, **_shown(made)}, ensure_ascii=False))
        return 0
    # The key alone on standard output, so that a script can take it from there.
    print(text)
    until = "has no end" if made.expires_at is None else f"is valid until {made.expires_at}"
    first = "" if others else " It is the first one: from now on every request needs a key."
    print(
        f"Key {made.id} opens {', '.join(made.scopes)} and {until}. It is shown this once and kept only as a digest;"
        f" running replicas take it within a second.{first}",
        file=sys.stderr,
    )
    return 0


@app.command("list")
def list_(as_json: Json = False) -> int:  # noqa: FBT002 - typer reads it
    """List every key that was made, revoked ones included, without its secret."""
    config = _config()
    present = KeyFile(config.security_dir).read()
    rows = [_shown(one) for one in present or ()]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
    elif present is None:
        print(
            f"No keys in {config.home}, so that requests need none; make one with: recollect keys create --scope NAME"
        )
    else:
        heading = ("id", "state", "scopes", "expires", "origins", "note")
        print(table(heading, map(_row, rows), left=set(range(len(heading)))))
    return 0


@app.command()
def revoke(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As list shows them.")],
    as_json: Json = False,  # noqa: FBT002 - typer reads it
) -> int:
    """Make keys invalid for good; replicas refuse them within a second."""
    config = _config()
    wanted = list(dict.fromkeys(map(keys.id_in, ids)))
    file = KeyFile(config.security_dir)
    known = {one.id for one in file.read() or ()}
    for key_id in wanted:
        if key_id not in known:
            # A key with a typing mistake is still a secret: no more of it than its id is shown.
            raise UsageError(f"there is no key {key_id[:11]!r} in {config.home}; see: recollect keys list")
    revoked: list[str] = []
    with file.edit() as present:
        for place, one in enumerate(present):
            if one.id in wanted and one.revoked_at is None:
                present[place] = dataclasses.replace(one, revoked_at=rfc3339_ms(time.time()))
                _enter(config, "key_revoke", one)
                revoked.append(one.id)
    if as_json:
        print(json.dumps({"revoked": revoked}))
        return 0
    for key_id in wanted:
        done = "is revoked; running replicas refuse it within a second." if key_id in revoked else "was revoked before."
        print(f"Key {key_id} {done}")
    return 0


def _enter(config: Config, what: str, one: keys.ApiKey) -> None:
    details = {"scopes": list(one.scopes), "expires_at": one.expires_at, "origins": list(one.origins)}
    try:
        security_log.append(
            config.security_dir, [security_log.new_entry(what, by="recollect keys", key=one.id, **details)]
        )
    except OSError as error:
        raise RunError(
            f"the security log in {config.security_dir} cannot be written, so no key was changed: "
            f"{error.strerror or error}"
        ) from error


def _shown(one: keys.ApiKey) -> dict[str, Any]:
    record = one.record()
    del record["digest"]
    return {**record, "state": one.state(time.time())}


def _row(shown: dict[str, Any]) -> tuple[str, ...]:
    return (
        shown["id"],
        shown["state"],
        ",".join(shown["scopes"]),
        "never" if shown["expires_at"] is None else shown["expires_at"][:_DATE],
        ",".join(shown["origins"]) or "any",
        shown["note"] or "",
    )


def _config() -> Config:
    return from_env(os.environ)
