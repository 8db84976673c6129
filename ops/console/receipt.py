"""The receipt of an audit: an object, a table and a verdict.

Invariant: all three are made from the same accounts; nothing here reads or prints. The keys of the object are a
contract (docs/archive.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ops.console.table import table
from ops.options.period import Period
from telemetry.audit.reconciliation import EpochAccount
from telemetry.audit.seq_runs import STATES

_COLUMNS: Final = (*STATES, "duplicated", "refused", "dropped")
_HEADING: Final = (
    *("slot", "producer", "epoch", "accepted", "archived", "flight", "dedup", "dead", "erased", "missing"),
    *("duplicate", "refused", "dropped"),
)
_SHORT_ID: Final = 8
# The object has every hole; the table is for reading.
_MAX_SHOWN: Final = 10


@dataclass(frozen=True)
class AuditReceipt:
    """The result of an audit.

    Attributes:
        period: The audited period.
        accounts: One for each (producer, epoch).
        slots: The slot of each producer that has one here.
        file_breaches: Breaches of files and dead letters, one sentence each.
        waited_s: How long it waited for events in flight; None without `--wait`.
    """

    period: Period
    accounts: Sequence[EpochAccount]
    slots: Mapping[str, int] = field(default_factory=dict)
    file_breaches: Sequence[str] = ()
    waited_s: float | None = None

    def total(self, name: str) -> int:
        """Sum a state, or an attribute of `EpochAccount`, over all accounts."""
        return sum(_number(account, name) for account in self.accounts)

    @property
    def breaches(self) -> list[str]:
        """Every breach but missing and duplicated events, one sentence each."""
        sentences = [f"{_name(account)}: {breach}" for account in self.accounts for breach in account.breaches]
        if self.waited_s is not None and self.total("in_flight"):
            sentences.append(f"{self.total('in_flight')} events were still in flight after {self.waited_s:g} s")
        return [*sentences, *self.file_breaches]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing, nothing is duplicated, and all sources agree."""
        return not (self.total("missing") or self.total("duplicated") or self.breaches)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `audit --json` prints."""
        refused, dropped, accepted = (self.total(name) for name in ("refused", "dropped", "accepted"))
        return {
            "range": {"from": self.period.start, "to": self.period.end},
            "offered": accepted + refused + dropped,
            "accepted": accepted,
            "refused": refused,
            "dropped": dropped,
            **{state: self.total(state) for state in STATES},
            "retired": self.total("retired"),
            "duplicated": self.total("duplicated"),
            "producers": [self._account_as_json(account) for account in self.accounts],
            "ok": self.ok,
            "breaches": self.breaches,
        }

    def _account_as_json(self, account: EpochAccount) -> dict[str, Any]:
        return {
            "producer": account.producer,
            "epoch": account.epoch,
            "slot": self.slots.get(account.producer),
            "first_seq": 1 if account.last_seq else None,
            "last_seq": account.last_seq,
            "watermark": account.watermark,
            "accepted": account.accepted,
            "refused": account.refused,
            "dropped": account.dropped,
            **{str(state): count for state, count in account.counts.items()},
            "retired": account.retired,
            "duplicated": account.duplicated,
            "duplicates": list(account.duplicates),
            "holes": [hole._asdict() for hole in account.holes],
            "gaps": [{"class": gap.of_class, "reason": gap.reason, "count": gap.events} for gap in account.gaps],
        }

    def as_text(self) -> str:
        """Return the table, the sentences behind its numbers, and the verdict."""
        if not self.accounts and not self.file_breaches:
            return f"No event has been accepted{_in_period(self.period)}."
        rows = [
            [
                str(self.slots.get(account.producer, "-")),
                account.producer[-_SHORT_ID:],
                str(account.epoch),
                *(_cell(_number(account, name)) for name in ("accepted", *_COLUMNS)),
            ]
            for account in self.accounts
        ]
        rows.append(["all", "", "", *(_cell(self.total(name)) for name in ("accepted", *_COLUMNS))])
        lines = [table(_HEADING, rows, left=(0, 1), gap=1)]
        if retired := self.total("retired"):
            lines.append(f"Retention has removed {retired} of the archived events; archive list names the dates.")
        for account in self.accounts:
            name = f"{_name(account)}: "
            lines += [f"{name}{gap.events} {_gap_noun(gap.of_class)}: {gap.reason}" for gap in account.gaps]
            holes = [f"missing {hole.first_seq} to {hole.last_seq}: {hole.why}" for hole in account.holes]
            lines += _shown(name, holes) + _shown(name, account.duplicates)
        lines += _shown("", self.breaches)
        return "\n".join([*lines, self.verdict()])

    def verdict(self) -> str:
        """Return the result as one sentence."""
        accepted, in_flight = self.total("accepted"), self.total("in_flight")
        period = _in_period(self.period)
        if self.ok:
            done = f"OK: each of {accepted} accepted events{period} is accounted for, none missing, none duplicated"
            return f"{done}; {in_flight} are still in flight." if in_flight else f"{done}."
        missing, duplicated, wrong = self.total("missing"), self.total("duplicated"), len(self.breaches)
        found = f"BREACH: of {accepted} accepted events{period} {missing} are missing and {duplicated} duplicated"
        disagreements = "1 disagreement" if wrong == 1 else f"{wrong} disagreements"
        return f"{found}; {disagreements} of the sources." if wrong else f"{found}."


def _number(account: EpochAccount, name: str) -> int:
    found = next((count for state, count in account.counts.items() if state == name), None)
    return int(getattr(account, name)) if found is None else found


def _name(account: EpochAccount) -> str:
    return f"{account.producer} epoch {account.epoch}"


def _cell(number: int) -> str:
    # A dot for 0 lets the other numbers stand out.
    return str(number) if number else "."


def _gap_noun(of_class: str | None) -> str:
    names = {"served": "served events dropped", "feedback": "feedback events refused"}
    return names.get(of_class or "", "accepted events lost")


def _shown(name: str, sentences: Sequence[str]) -> list[str]:
    first = [f"{name}{sentence}" for sentence in sentences[:_MAX_SHOWN]]
    more = len(sentences) - _MAX_SHOWN
    return [*first, f"{name}and {more} more, all of them in --json"] if more > 0 else first


def _in_period(period: Period) -> str:
    start = f" from {period.start}" if period.start else ""
    return start + (f" to {period.end}" if period.end else "")
