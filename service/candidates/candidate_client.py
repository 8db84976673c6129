"""The client of the candidates service: kept-alive connections, a deadline, one retry, and a circuit for each address.

Invariants: `ask` ends within its deadline, whatever the network does; an address whose circuit is open costs no wait.
A second attempt goes to another address if there is one. Calls are reads, so that a repeated one does no harm.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson
import structlog
from yarl import URL

from service.candidates.circuit import Circuit
from service.candidates.connections import Connections
from service.candidates.settings import CandidatesConfig
from service.errors import CandidatesUnavailable

_log = structlog.get_logger("recollect.candidates")
FailureKind: TypeAlias = Literal["connection", "timeout", "status", "answer", "embedding_space", "circuit"]
FAILURES: Final[tuple[FailureKind, ...]] = (
    "connection", "timeout", "status", "answer", "embedding_space", "circuit",
)  # fmt: skip
_ATTEMPTS: Final = 2
# The share of the deadline for the first attempt, so that another address has as long.
_FIRST_SHARE: Final = 0.5
# An address that refused a connection is not asked again within this time while its circuit is open.
_REFUSED_S: Final = 0.02
_POLL_S: Final = 0.1
_SPACE_S: Final = 0.5
# A service that fails now and then must not fill the log.
_NOTE_EVERY_S: Final = 5.0
_CONFLICT: Final = 409
_OK: Final = 200
# Refusals that every replica would repeat.
_FINAL: Final = frozenset({401, 403, 413, 422})
SPACE_HEADER: Final = "X-Embedding-Space"
_SPACE: Final = re.compile(SPACE_HEADER.lower().encode() + rb":[ \t]*([!-~]+)[ \t]*\r\n")
_JSON: Final = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    """What the candidates service found.

    Attributes:
        model: The version of its model.
        watermark: The item changes that it reflects.
        item_ids: Best first.
    """

    model: str
    watermark: str
    item_ids: list[str]


class _Failed(Exception):
    def __init__(self, kind: FailureKind, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.kind: FailureKind = kind
        self.reason = reason
        self.is_final = is_final


@dataclass
class _Address:
    url: URL
    connections: Connections
    circuit: Circuit = field(default_factory=Circuit)
    open: int = 0
    refused_s: float | None = None  # when it last refused a connection; None if it did not when it was last asked


class CandidateClient:
    """Asks the replicas of the candidates service, or the balancer in front of them.

    Args:
        config: Their addresses, at least one, and the longest that one call may take, both attempts together.

    Attributes:
        failures: Failed attempts by kind.
        calls: Calls so far.
        unanswered: Calls that no attempt answered.
    """

    def __init__(self, config: CandidatesConfig) -> None:
        self._addresses = [_Address(URL(url), Connections(URL(url))) for url in config.addresses]
        self._timeout_s = config.timeout_s
        self._next = 0
        self._problem = ""
        self._noted_s = -_NOTE_EVERY_S
        self.failures: dict[FailureKind, int] = dict.fromkeys(FAILURES, 0)
        self.calls = 0
        self.unanswered = 0

    def __repr__(self) -> str:
        return f"<CandidateClient {[str(address.url) for address in self._addresses]}>"

    @property
    def open_circuits(self) -> int:
        """How many addresses are not asked at the moment."""
        return sum(address.circuit.is_open for address in self._addresses)

    async def ask(self, body: bytes, headers: Mapping[str, str], timeout_s: float | None = None) -> Answer:
        """Ask for candidates.

        Args:
            body: The body of `POST /v1/candidates`.
            headers: The credentials of the caller.
            timeout_s: How long this call may take, if that is less than usual.

        Raises:
            CandidatesUnavailable: No attempt was answered in time, or the service serves another embedding space.
        """
        self.calls += 1
        ends_s = time.monotonic() + min(self._timeout_s, self._timeout_s if timeout_s is None else timeout_s)
        failed: _Failed | None = None
        tried: _Address | None = None
        for attempt in range(_ATTEMPTS):
            address = self._choose(tried)
            if address is None or address is tried:
                address = self._refusing(tried) or address
            if address is None:
                if failed is None:
                    failed = _Failed("circuit", "no address has answered lately")
                    self.failures["circuit"] += 1
                break
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                break
            try:
                answer = await self._attempt(address, body, headers, left_s * (1 if attempt else _FIRST_SHARE))
            except _Failed as error:
                self.failures[error.kind] += 1
                failed, tried = error, address
                if error.is_final:
                    break
                continue
            self._note("")
            return answer
        reason = "no attempt was made" if failed is None else failed.reason
        self.unanswered += 1
        self._note(reason)
        raise CandidatesUnavailable(reason)

    async def wait_for_space(self, embedding_space: str, timeout_s: float) -> bool:
        """Wait until every address that answers has an embedding space; return whether that was within the time."""
        ends_s = time.monotonic() + timeout_s
        while True:
            found = await asyncio.gather(*(self._space(address) for address in self._addresses))
            if all(space in {None, embedding_space} for space in found):
                return any(space is not None for space in found)
            if time.monotonic() >= ends_s:
                return False
            await asyncio.sleep(_POLL_S)

    def close(self) -> None:
        """Close the connections."""
        for address in self._addresses:
            address.connections.close()

    def _choose(self, tried: _Address | None) -> _Address | None:
        """Return the address with the fewest open requests, in turn, and another than the one tried if there is one."""
        now_s = time.monotonic()
        self._next += 1
        count = len(self._addresses)
        turns = (self._addresses[(self._next + step) % count] for step in range(count))
        allowed = [address for address in turns if address.circuit.allows(now_s)]
        return min(allowed, key=lambda address: (address is tried, address.open), default=None)

    def _refusing(self, tried: _Address | None) -> _Address | None:
        """Return the address that has refused no connection for the longest time, of those that did; None without one.

        To ask it again costs no wait, and it may have been started since: in a rolling restart the next replica stops
        as soon as it is ready.
        """
        before_s = time.monotonic() - _REFUSED_S
        found = [
            (one.refused_s, number)
            for number, one in enumerate(self._addresses)
            if one.refused_s is not None and one.refused_s < before_s and one is not tried
        ]
        return self._addresses[min(found)[1]] if found else None

    async def _attempt(self, address: _Address, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answer:
        address.circuit.enter()
        address.open += 1
        try:
            async with asyncio.timeout(timeout_s):
                answered = await address.connections.exchange("POST", "/v1/candidates", {**_JSON, **headers}, body)
        except TimeoutError:
            address.refused_s = None
            address.circuit.fail(time.monotonic())
            raise _Failed("timeout", f"{address.url} did not answer within {timeout_s:.3f} s") from None
        except CandidatesUnavailable as error:
            address.circuit.fail(time.monotonic())
            raise _Failed("answer", f"{address.url}: {error}") from None
        except OSError as error:
            address.circuit.fail(time.monotonic())
            address.refused_s = time.monotonic()
            raise _Failed("connection", f"{address.url} cannot be reached: {type(error).__name__}") from None
        except BaseException:
            address.circuit.leave()
            raise
        finally:
            address.open -= 1
        try:
            answer = _answer(address.url, answered.status, answered.body)
        except _Failed as error:
            # A refusal is an answer of a service that works.
            if error.is_final or error.kind == "embedding_space":
                address.circuit.succeed()
            else:
                address.circuit.fail(time.monotonic())
            raise
        address.circuit.succeed()
        address.refused_s = None
        return answer

    async def _space(self, address: _Address) -> str | None:
        try:
            async with asyncio.timeout(_SPACE_S):
                answered = await address.connections.exchange("GET", "/readyz", {})
        except (TimeoutError, CandidatesUnavailable, OSError):
            return None
        found = _SPACE.search(answered.head)
        return None if found is None else found[1].decode()

    def _note(self, problem: str) -> None:
        """Log when the service begins to fail, and when it answers again."""
        now_s = time.monotonic()
        if bool(problem) == bool(self._problem) or now_s - self._noted_s < _NOTE_EVERY_S:
            return
        self._problem, self._noted_s = problem, now_s
        if problem:
            _log.warning("candidates service does not answer; lists are made from popular candidates", reason=problem)
        else:
            _log.info("candidates service answers again")


def _answer(url: URL, status: int, content: bytes) -> Answer:
    try:
        value: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        value = None
    fields = value if isinstance(value, dict) else {}
    if status == _OK:
        model, watermark, item_ids = fields.get("model"), fields.get("catalogue_watermark"), fields.get("item_ids")
        if isinstance(model, str) and isinstance(watermark, str) and isinstance(item_ids, list):
            known = [item_id for item_id in item_ids if isinstance(item_id, str)]
            if len(known) == len(item_ids):
                return Answer(model, watermark, known)
        raise _Failed("answer", f"{url} does not answer as a candidates service does")
    detail = str(fields.get("detail", ""))[:200].rstrip(".")
    if status == _CONFLICT:
        raise _Failed("embedding_space", detail or f"{url} serves another embedding space")
    reason = f"{url} answered {status}" + (f": {detail}" if detail else "")
    raise _Failed("status", reason, is_final=status in _FINAL)
