"""The figures of a drill of nodes, and what explains a failed request: its attempts, and what happened meanwhile."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ops.drill.drill_load import RequestSample
from ops.nodes.node_journal import NodeJournal, Note

# Answers of the first moments wait for the address, whatever the other node does.
_MOVE_S: Final = 2.0
# What happened so long before a request that failed was sent, and so long after, may have been the reason.
_BEFORE_S: Final = 6.0
_AFTER_S: Final = 4.0
# A request that leaves later than this is late.
_LATE_S: Final = 0.25


@dataclass
class Loss:
    """One node's loss of power.

    Attributes:
        node: Its name.
        at_s: When, on the clock of the load.
        address_s: Seconds until another node had the address; None if the node did not have it.
        lease_s: Seconds until the other consumer had the lease; None if the node's did not hold it.
        on_its_disk: Acknowledged events and lists that only the disk of the node had while it was off.
        off_p50_ms: The median time until an answer while the node was off, from the intended send time.
        off_p99_ms: The 99th percentile of the same, the first two seconds with the move of the address left out.
    """

    node: str
    at_s: float
    address_s: float | None = None
    lease_s: float | None = None
    on_its_disk: int = 0
    off_p50_ms: float = 0.0
    off_p99_ms: float = 0.0

    def measure(self, samples: Iterable[RequestSample], off_s: float) -> None:
        """Set the percentiles, which follow from the requests that were sent while the node was off."""
        sent = range(int((self.at_s + _MOVE_S) * 1e3), int((self.at_s + off_s) * 1e3))
        latencies_ms = sorted(sample.latency_s * 1e3 for sample in samples if int(sample.at_s * 1e3) in sent)
        if latencies_ms:
            self.off_p50_ms = round(latencies_ms[len(latencies_ms) // 2], 1)
            self.off_p99_ms = round(latencies_ms[math.ceil(0.99 * len(latencies_ms)) - 1], 1)


@dataclass
class FailedRequests:
    """Requests of one kind that failed in the same way.

    Attributes:
        kind: A list or feedback.
        causes: Why each attempt failed, in their order.
        count: How many they are.
        first_s: When the first one was due, on the clock of the load.
        last_s: When the last one was.
        late: How many of them left late, because the load itself did not get to run: they judge no node.
    """

    kind: str
    causes: tuple[str, ...]
    count: int
    first_s: float
    last_s: float
    late: int = 0


@dataclass
class NodesReport:
    """The figures of a drill.

    Attributes:
        requests: Requests that were sent.
        failed: Causes and numbers of those that failed, one retry included.
        failures: The same by kind and by the causes of both attempts, with their moments.
        notes: What happened on the nodes and to the load around these moments.
        retried: Requests that needed the retry.
        slowest_s: The longest time until an answer, from the intended send time.
        late_p99_ms: How late requests left, 99 % of them at most: above some 100 ms this machine was too busy to judge.
        acknowledged: Events and lists that were acknowledged.
        lost: Those that the archive does not have in the end.
        duplicated: Those that it has twice.
        altered: Those that it has with other content.
        losses: The losses of power.
    """

    requests: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    failures: list[FailedRequests] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    retried: int = 0
    slowest_s: float = 0.0
    late_p99_ms: float = 0.0
    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    altered: int = 0
    losses: list[Loss] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether no request failed and the archive has everything once."""
        return not (self.failed or self.lost or self.duplicated or self.altered)

    def take(self, samples: Iterable[RequestSample], journal: NodeJournal) -> None:
        """Count the requests, and note what explains those that failed; the journal's clock is that of the load."""
        samples = sorted(samples, key=lambda sample: sample.at_s)
        found: dict[tuple[str, ...], FailedRequests] = {}
        for sample in samples:
            self.requests += 1
            self.retried += sample.attempts > 1
            self.slowest_s = max(self.slowest_s, sample.latency_s)
            if sample.failure is None:
                continue
            self.failed[sample.failure] = self.failed.get(sample.failure, 0) + 1
            causes = (*([] if sample.retry_cause is None else [sample.retry_cause]), sample.failure)
            at_s = round(sample.at_s, 3)
            group = found.setdefault((sample.kind, *causes), FailedRequests(sample.kind, causes, 0, at_s, at_s))
            group.count += 1
            group.last_s = at_s
            group.late += sample.lag_s > _LATE_S
        self.failures = list(found.values())
        spans = [(group.first_s - _BEFORE_S, group.last_s + _AFTER_S) for group in self.failures]
        notes = sorted([*journal.between(-math.inf, math.inf), *_delays(samples)], key=lambda note: note.at_s)
        self.notes = [str(note) for note in notes if any(start <= note.at_s <= stop for start, stop in spans)]


def _delays(samples: Iterable[RequestSample]) -> list[Note]:
    """Return when the load itself was late, from requests in the order of their intended send times."""
    found: list[Note] = []
    until_s = -math.inf
    for sample in samples:
        if sample.lag_s > _LATE_S and sample.at_s > until_s:
            until_s = sample.at_s + sample.lag_s
            found.append(Note(sample.at_s, "load", f"a request left {sample.lag_s:.2f} s late"))
    return found


def described(report: NodesReport) -> str:
    """Return the figures as sentences."""
    lines = []
    for loss in report.losses:
        parts = [f"{loss.node} was lost {loss.at_s:.1f} s after the start of the load"]
        if loss.address_s is not None:
            parts.append(f"the address moved within {loss.address_s:.1f} s")
        if loss.lease_s is not None:
            parts.append(f"the other consumer had the lease after {loss.lease_s:.1f} s")
        parts.append(f"{loss.on_its_disk} acknowledged events and lists were on its disk alone")
        parts.append(f"answers then took {loss.off_p50_ms:g} ms, 99 % of them {loss.off_p99_ms:g} ms at most")
        lines.append("; ".join(parts) + ".")
    failed = ", ".join(f"{count} by {cause}" for cause, count in sorted(report.failed.items())) or "none"
    lines.append(
        f"Requests: {report.requests}; with one retry failed: {failed}; retried: {report.retried};"
        f" slowest: {report.slowest_s:.2f} s; 99 % of them left at most {report.late_p99_ms:g} ms late."
    )
    lines += [
        f"{group.count} of these ({group.kind}) failed by {', then '.join(group.causes)}; they were due from"
        f" {group.first_s:.2f} s to {group.last_s:.2f} s, {group.late} of them late."
        for group in report.failures
    ]
    if report.notes:
        lines += ["Around these moments:", *(f"  {note}" for note in report.notes)]
    lines.append(
        f"Acknowledged events and lists: {report.acknowledged}; lost: {report.lost}; twice in the archive:"
        f" {report.duplicated}; altered: {report.altered}."
    )
    return "\n".join(lines)
