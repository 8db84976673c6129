"""`recollect serve`: one replica."""

import dataclasses
import os
from typing import Annotated, Any

import typer

from ops.options.shared_options import InsecureOption, SupervisedOption


def command(
    *,
    host: Annotated[str | None, typer.Option("--host", metavar="HOST", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port for requests.")] = None,
    admin_port: Annotated[int | None, typer.Option("--admin-port", min=1, max=65535, help="Port for metrics.")] = None,
    slot: Annotated[
        int | None, typer.Option("--slot", min=0, help="Telemetry slot; by default the lowest free.")
    ] = None,
    insecure: InsecureOption = False,
    supervised: SupervisedOption = False,
) -> int:
    """Run one replica."""
    from service.config import from_env
    from service.replica import serve

    config = from_env(os.environ)
    given: dict[str, Any] = {"host": host, "port": port, "admin_port": admin_port}
    server = dataclasses.replace(config.server, **{name: value for name, value in given.items() if value is not None})
    serve(dataclasses.replace(config, server=server), slot, insecure=insecure, supervised=supervised)
    return 0
