"""`recollect generate`: the lists of all users as Parquet files.

`verify`: is every user in them, and once. `erase`: lists of erased users leave them.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.console.progress import StageProgress
from ops.console.worker_screen import progress_screen, watch_of
from ops.options.list_options import FilterOption
from ops.options.shared_options import ClusterOption, JsonOption, ThreadsOption, WorkersOption
from service.config import from_env
from service.errors import UsageError

# Imported when the work begins: `--help` needs no numerical library.
if TYPE_CHECKING:
    from ops.offline.bulk_generation import Generated

app = typer.Typer(help="The lists of all users, as Parquet files.", invoke_without_command=True, rich_markup_mode=None)

# As many as another stage could want to choose from.
_MOST_ITEMS = 1000


@app.callback()
def command(
    context: typer.Context,
    *,
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=_MOST_ITEMS, help="How many items for each user.")] = 100,
    item_filter: FilterOption = None,
    users: Annotated[
        Path | None,
        typer.Option("--users", metavar="FILE", help="A user id a line, - for standard input; by default all users."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="The folder of the files; by default one in RECOLLECT_HOME/generated. What a killed generation left "
            "there is continued.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="VERSION", help="A published version; by default the active one.")
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="With what users did since the training, as far as it is archived; also of users whom the model does "
            "not know.",
        ),
    ] = False,
    layout: Annotated[
        str,
        typer.Option(
            "--layout", metavar="rows|lists", help="A row for each item, or a row for each user with a list of items."
        ),
    ] = "rows",
    shard_users: Annotated[
        int | None,
        typer.Option("--shard-users", min=1, metavar="N", help="Users in a file; by default 1,000 to 50,000."),
    ] = None,
    threads: ThreadsOption = 0,
    workers: WorkersOption = 0,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write the lists of all users to Parquet files, exactly one list for each user, and continue what was killed."""
    if context.invoked_subcommand is not None:
        return 0
    with _needs_extra():
        from ops.chosen_executor import chosen_executor
        from ops.offline import bulk_generation
        from ops.offline.bulk_generation import GenerationRequest
        from service.generation.files.shard_format import LAYOUTS
        from service.training.algorithms.kernels.threads import limit

    chosen = next((known for known in LAYOUTS if known == layout), None)
    if chosen is None:
        raise UsageError(f"--layout is {layout!r}; give {' or '.join(LAYOUTS)}.")
    started_s = time.monotonic()
    ids, sha256 = bulk_generation.requested_ids(users)
    request = GenerationRequest(n, item_filter, model, ids, sha256, shard_users, chosen, live)
    config = from_env(os.environ)
    with (
        progress_screen(has_workers=bool(workers) or cluster is not None) as progress,
        limit(threads),
        chosen_executor(config, workers, watch_of(progress), cluster=cluster),
    ):
        made = bulk_generation.run(config, request, output, progress)
    if as_json:
        print(json.dumps({"path": str(made.path), "outcome": made.outcome, **made.manifest}, ensure_ascii=False))
    else:
        print("\n".join(_summary(made, time.monotonic() - started_s)))
    return 0


@app.command("verify")
def verify_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of generated lists.")],
    *,
    as_json: JsonOption = False,
) -> int:
    """Read all files: each is the one of the manifest, and every user of it is there once."""
    with _needs_extra():
        from service.generation.files.verification import verify

    with StageProgress() as progress:
        found = verify(folder, progress)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        print(
            f"{folder} is whole: {found['shards']:,} files with {found['users']:,} users and {found['rows']:,} items; "
            "no user is twice or missing."
        )
    return 0


@app.command("erase")
def erase_command(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR]...", help="Folders, or what holds them; by default RECOLLECT_HOME/generated."),
    ] = None,
    *,
    users: Annotated[
        list[str] | None,
        typer.Option(
            "--user",
            metavar="ID",
            help="Remove this user, whenever the lists were made; may be repeated. By default all users who were "
            "erased since.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Remove erased users from complete folders of lists; files without them stay as they are."""
    with _needs_extra():
        from ops.offline.list_erasure import erase_from_lists
    found = erase_from_lists(from_env(os.environ), folders or [], users or [])
    # A user by name is not on the list of erased users: an unfinished generation makes that user's list.
    status = 1 if users and found.unfinished else 0
    if as_json:
        print(json.dumps(asdict(found)))
        return status
    print(
        f"{found.lists:,} lists were removed from {found.files:,} files; {found.folders:,} complete folders were "
        "searched."
    )
    if status:
        print(f"{found.unfinished:,} folders are not complete and may hold them: complete or remove these, then erase.")
    elif found.unfinished:
        print(f"{found.unfinished:,} folders are not complete: their generation leaves erased users out at its end.")
    return status


@contextmanager
def _needs_extra() -> Iterator[None]:
    """Say which package an import lacks."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"recollect generate needs the package {error.name}; install recollect[train].") from error


def _summary(made: "Generated", took_s: float) -> list[str]:
    manifest: dict[str, Any] = made.manifest
    shards = manifest["shards"]
    rows, size_bytes = (sum(shard[name] for shard in shards) for name in ("rows", "bytes"))
    model = manifest["inputs"]["model"]
    if made.outcome == "complete":
        return [f"{made.path} is complete since {manifest['completed']}, by {model}: there is nothing to do."]
    lines = [
        f"{manifest['users']:,} users have {rows:,} items by {model}, as of {manifest['as_of']}.",
        f"{len(shards):,} files, {size_bytes / 1e6:,.1f} MB, in {made.path} after {took_s:.1f} s"
        + (", continued from an earlier run." if made.outcome == "continued" else "."),
    ]
    without = sum(shard["users_without_items"] for shard in shards)
    if without:
        lines.append(f"{without:,} users have no item: they have seen all that their list could hold.")
    if manifest["users_unknown"]:
        lines.append(f"{manifest['users_unknown']:,} users are unknown to the model.")
    if manifest["users_erased"]:
        lines.append(f"{manifest['users_erased']:,} erased users are left out.")
    return lines
