"""`recollect consume`: the consumer job."""

import os
from typing import Annotated, Final

import typer

from ops.options.shared_options import ClaimOption, SupervisedOption

ADMIN_PORT: Final = 8092


def command(
    *,
    admin_port: Annotated[int, typer.Option("--admin-port", min=1, max=65535, help="Port for metrics.")] = ADMIN_PORT,
    claim: ClaimOption = False,
    supervised: SupervisedOption = False,
) -> int:
    """Run the telemetry consumer job."""
    from service.config import from_env
    from service.consumer_job import consume

    consume(from_env(os.environ), admin_port, claim=claim, supervised=supervised)
    return 0
