"""Asks `recollect audit` for its receipt, as an operator would.

The invariant: a receipt that could not be had is a breach, never silence.
"""

from dataclasses import dataclass

import orjson

from ops.drill.recollect_program import Ended, recollect
from ops.drill.system import System

_WAIT_S = 60
_LIMIT_S = 300.0


@dataclass(frozen=True)
class Audit:
    """What it said.

    Attributes:
        ok: Whether everything is accounted for.
        accepted: Events that replicas took.
        archived: Events in the archive.
        missing: Accepted events that are neither archived, nor explained, nor on their way.
        duplicated: Events that are archived more than once.
        breaches: Its findings in words.
    """

    ok: bool
    accepted: int | None = None
    archived: int | None = None
    missing: int | None = None
    duplicated: int | None = None
    breaches: tuple[str, ...] = ()


async def audit(system: System) -> Audit:
    """Run `recollect audit --json` about a system."""
    try:
        ended = await recollect("audit", "--json", "--wait", str(_WAIT_S), environ=system.environ, limit_s=_LIMIT_S)
    except TimeoutError:
        return Audit(ok=False, breaches=(f"`recollect audit` was not over within {_LIMIT_S:g} s",))
    return understand(ended)


def understand(ended: Ended) -> Audit:
    """Read a finished audit."""
    try:
        receipt = orjson.loads(ended.told)
        breaches = tuple(str(breach) for breach in receipt.get("breaches", ()))
        counts = {name: int(receipt[name]) for name in ("accepted", "archived", "missing", "duplicated")}
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        excerpt = ended.said.decode(errors="replace").strip()[-200:] or "it said nothing"
        return Audit(ok=False, breaches=(f"`recollect audit` gave no receipt (exit {ended.status}): {excerpt}",))
    return Audit(ok=ended.status == 0, **counts, breaches=breaches)
