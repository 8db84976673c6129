"""`recollect serve`: one replica, which does all the work of a list or one part of it."""

import dataclasses
import os
from typing import Annotated, Any

import typer

from ops.options.shared_options import InsecureOption, SupervisedOption
from service.models.roles import Role


def command(
    *,
    host: Annotated[str | None, typer.Option("--host", metavar="HOST", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port for requests.")] = None,
    admin_port: Annotated[int | None, typer.Option("--admin-port", min=1, max=65535, help="Port for metrics.")] = None,
    slot: Annotated[
        int | None, typer.Option("--slot", min=0, help="Telemetry slot; by default the lowest free.")
    ] = None,
    role: Annotated[
        Role | None,
        typer.Option(
            "--role", help="candidates: finds items near to vectors; ranking: makes the lists, and asks for candidates."
        ),
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            "--candidates",
            metavar="URLS",
            help="With the role ranking: the replicas of the candidates service, comma separated.",
        ),
    ] = None,
    insecure: InsecureOption = False,
    supervised: SupervisedOption = False,
) -> int:
    """Run one replica."""
    from service.config import from_env
    from service.replica import serve

    chosen = {"RECOLLECT_ROLE": role, "RECOLLECT_CANDIDATES_URLS": candidates}
    config = from_env({**os.environ, **{name: value for name, value in chosen.items() if value is not None}})
    given: dict[str, Any] = {"host": host, "port": port, "admin_port": admin_port}
    server = dataclasses.replace(config.server, **{name: value for name, value in given.items() if value is not None})
    serve(dataclasses.replace(config, server=server), slot, insecure=insecure, supervised=supervised)
    return 0
