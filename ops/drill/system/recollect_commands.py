"""Runs `recollect` commands about the drilled system, as an operator would.

Invariant: a missing audit receipt is a breach.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from ops.program import PROGRAM

_AUDIT_WAIT_S = 60
_AUDIT_LIMIT_S = 300.0


@dataclass(frozen=True)
class CommandResult:
    """The exit status and the output of a command."""

    status: int | None
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class AuditSummary:
    """The counts and breaches in the output of `recollect audit --json`; counts are None without a receipt.

    Attributes:
        ok: Whether everything is accounted for.
        accepted: Events that replicas accepted.
        archived: Events in the archive.
        missing: Accepted events that are neither archived, nor explained, nor on their way.
        duplicated: Events that are archived more than once.
        breaches: One clause each.
    """

    ok: bool
    accepted: int | None = None
    archived: int | None = None
    missing: int | None = None
    duplicated: int | None = None
    breaches: tuple[str, ...] = ()


async def run_recollect(*arguments: str, environ: Mapping[str, str], limit_s: float) -> CommandResult:
    """Run a command with its whole environment.

    Raises:
        TimeoutError: It took longer than `limit_s`, and was killed.
    """
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *arguments,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(limit_s):
            stdout, stderr = await process.communicate()
        return CommandResult(process.returncode, stdout, stderr)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run_audit(environ: Mapping[str, str]) -> AuditSummary:
    """Run `recollect audit --json`."""
    arguments = ("audit", "--json", "--wait", str(_AUDIT_WAIT_S))
    try:
        return parse_receipt(await run_recollect(*arguments, environ=environ, limit_s=_AUDIT_LIMIT_S))
    except TimeoutError:
        return AuditSummary(ok=False, breaches=(f"`recollect audit` took longer than {_AUDIT_LIMIT_S:g} s",))


def parse_receipt(result: CommandResult) -> AuditSummary:
    """Read the output of an audit."""
    try:
        receipt = orjson.loads(result.stdout)
        breaches = tuple(str(breach) for breach in receipt.get("breaches", ()))
        counts = {name: int(receipt[name]) for name in ("accepted", "archived", "missing", "duplicated")}
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        excerpt = result.stderr.decode(errors="replace").strip()[-200:] or "it printed nothing"
        breach = f"`recollect audit` gave no receipt (exit {result.status}): {excerpt}"
        return AuditSummary(ok=False, breaches=(breach,))
    return AuditSummary(ok=result.status == 0, **counts, breaches=breaches)
