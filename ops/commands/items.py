"""`recollect items`: write the items of a file to a running installation, and show one."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Final
from urllib.parse import urlencode

import typer

from ops.commands.item_import import BadLine, ItemBatch, batches
from ops.console.progress import StageProgress
from ops.loadtest import running_url
from ops.options.presented_key import KeyFileOption, read_api_key
from ops.options.shared_options import JsonOption
from service.client import Client, ClientError, Refused
from service.errors import RunError, UsageError

app = typer.Typer(help="Items of the catalogue.", no_args_is_help=True, rich_markup_mode=None)

UrlOption = Annotated[
    str | None, typer.Option("--url", help="The address of the service; by default the running installation's.")
]
STDIN: Final = "-"
_DEADLINE_S: Final = 30.0
_RETRIES: Final = 5
# Lines that are shown; --json has all of them.
_MOST_SHOWN: Final = 20


@app.command("import")
def import_(
    path: Annotated[str, typer.Argument(metavar="FILE.jsonl", help='One JSON object a line; "-" for standard input.')],
    from_line: Annotated[int, typer.Option("--from-line", min=1, help="Skip the lines before.")] = 1,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer reads it
) -> int:
    """Write items, in the order of the file; bad lines are reported, and all others written."""
    bad: list[BadLine] = []
    n_written = n_lines = 0
    with _client(url, key_file) as client, _opened(path) as (file, size_bytes), StageProgress() as stages:
        n_bytes = 0
        for batch in batches(file, from_line):
            bad += batch.bad
            n_lines += batch.n_lines
            n_bytes += batch.n_bytes
            if batch.items:
                _send(client, batch)
            n_written += len(batch.items)
            stages("writing items", n_bytes, max(size_bytes, n_bytes))
    _report(bad, n_written, n_lines, as_json=as_json)
    return 1 if bad else 0


@app.command()
def show(
    item_id: Annotated[str, typer.Argument(metavar="ID", help="The item.")],
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer reads it
) -> int:
    """Show what is known of an item."""
    with _client(url, key_file) as client, _errors_translated():
        item: dict[str, Any] = client.call("GET", f"/v1/items?{urlencode({'item_id': item_id})}")
    if as_json:
        print(json.dumps(item, ensure_ascii=False))
        return 0
    print(f"{item['title'] or 'No title'} (item {item['item_id']})")
    for name, value in item["attributes"].items():
        texts = value if isinstance(value, list) else [value if isinstance(value, str) else json.dumps(value)]
        print(f"  {name}: {', '.join(texts)}")
    notes = {
        "hidden from lists": item["hidden"],
        f"available from {item['available_from']}": item["available_from"],
        f"available until {item['available_until']}": item["available_until"],
        "not known to the served model, which lists it by its attributes": not item["trained"],
    }
    for note, applies in notes.items():
        if applies:
            print(f"  {note}")
    return 0


def _client(url: str | None, key_file: Path | None) -> Client:
    key = read_api_key(key_file)
    try:
        return Client(running_url() if url is None else url, api_key=key, deadline_s=_DEADLINE_S, retries=_RETRIES)
    except ValueError as error:
        raise UsageError(f"--url {url}: {error}") from None


@contextmanager
def _opened(path: str) -> Iterator[tuple[IO[bytes], int]]:
    """Open a file or standard input, and yield it with its size, 0 for an unknown one."""
    if path == STDIN:
        yield sys.stdin.buffer, 0
        return
    try:
        with Path(path).open("rb") as file:
            yield file, Path(path).stat().st_size
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None


def _send(client: Client, batch: ItemBatch) -> None:
    try:
        with _errors_translated():
            client.call("POST", "/v1/items", {"items": batch.items})
    except RunError as error:
        raise RunError(
            f"{str(error).removesuffix('.')}; all lines before {batch.first_line} are written: continue with "
            f"--from-line {batch.first_line}."
        ) from None


@contextmanager
def _errors_translated() -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise RunError(f"The service answered {error.status}: {error.detail}") from None
    except ClientError as error:
        raise RunError(str(error)) from None


def _report(bad: list[BadLine], n_written: int, n_lines: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"lines": n_lines, "written": n_written, "bad": [line._asdict() for line in bad]}))
        return
    for line in bad[:_MOST_SHOWN]:
        print(f"line {line.line}: {line.message}", file=sys.stderr)
    if len(bad) > _MOST_SHOWN:
        print(f"and {len(bad) - _MOST_SHOWN} more; --json lists all of them", file=sys.stderr)
    print(f"{n_written} items written.")
    if bad:
        print(f"{len(bad)} of {n_lines} lines were left out: correct them and import the file again.", file=sys.stderr)
