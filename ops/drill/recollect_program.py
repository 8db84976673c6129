"""Runs the other commands of `recollect`, as an operator beside the drill would."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from ops.program import PROGRAM


@dataclass(frozen=True)
class Ended:
    """A command that is over: its exit status, standard output and standard error."""

    status: int | None
    told: bytes
    said: bytes


async def recollect(*arguments: str, environ: Mapping[str, str], limit_s: float) -> Ended:
    """Run a command to its end.

    Args:
        arguments: The verb and its options.
        environ: Its whole environment.
        limit_s: How long it may take.

    Raises:
        TimeoutError: It was not over in time, and was killed.
    """
    command = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *arguments,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(limit_s):
            told, said = await command.communicate()
        return Ended(command.returncode, told, said)
    finally:
        if command.returncode is None:
            command.kill()
            await command.wait()
