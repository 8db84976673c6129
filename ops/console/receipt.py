"""The receipt: what became of every event, as one object, a table and a verdict.

Invariant: all three are made from the same accounts and say the same; nothing here reads or prints. The keys of the
object are a contract (docs/archive.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ops.console.table import table
from ops.options.period import Period
from telemetry.audit.reconciliation import STATES, Account

_HEADING: Final = (
    *("slot", "producer", "epoch", "accepted", "archived", "flight", "dedup", "dead", "erased", "missing"),
    *("doubled", "refused", "dropped"),
)
_LEFT: Final = (0, 1)
_SHORT_ID: Final = 8
# The table is for reading; the object has every hole.
_MOST_SHOWN: Final = 10


@dataclass(frozen=True)
class Receipt:
    """What an audit found.

    Attributes:
        period: What was asked about.
        accounts: One for each (producer, epoch).
        slots: The slot of each producer that has one here.
        breaches: What is wrong beside missing and doubled events, one sentence each.
        waited_s: How long it waited for events in flight; None if it was not asked to.
    """

    period: Period
    accounts: Sequence[Account]
    slots: Mapping[str, int] = field(default_factory=dict)
    breaches: Sequence[str] = ()
    waited_s: float | None = None

    def total(self, name: str) -> int:
        """Add a number up over all accounts.

        Args:
            name: A state, or an attribute of `Account`.
        """
        return sum(_number(account, name) for account in self.accounts)

    @property
    def all_breaches(self) -> list[str]:
        """Every breach, those of the accounts with whose they are."""
        sentences = [f"{_name(account)}: {breach}" for account in self.accounts for breach in account.breaches]
        if self.waited_s is not None and self.total("in_flight"):
            sentences.append(f"{self.total('in_flight')} events were still in flight after {self.waited_s:g} s")
        return [*sentences, *self.breaches]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing, nothing doubled, and everything agrees."""
        return not (self.total("missing") or self.total("duplicated") or self.all_breaches)

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
            "producers": [self._described(account) for account in self.accounts],
            "ok": self.ok,
            "breaches": self.all_breaches,
        }

    def _described(self, account: Account) -> dict[str, Any]:
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
            "doubles": list(account.doubles),
            "holes": [hole._asdict() for hole in account.holes],
            "gaps": [{"class": gap.of_class, "reason": gap.reason, "count": gap.events} for gap in account.gaps],
        }

    def as_text(self) -> str:
        """Return the table, what is behind its numbers, and the verdict."""
        if not self.accounts and not self.breaches:
            return f"No event has been accepted{_asked(self.period)}."
        rows = [
            [
                str(self.slots.get(account.producer, "-")),
                account.producer[-_SHORT_ID:],
                str(account.epoch),
                *(_shown(_number(account, name)) for name in _COLUMNS),
            ]
            for account in self.accounts
        ]
        rows.append(["all", "", "", *(_shown(self.total(name)) for name in _COLUMNS)])
        lines = [table(_HEADING, rows, left=_LEFT, gap=1)]
        if retired := self.total("retired"):
            lines.append(f"Of the archived events retention has removed {retired} since; archive list names the dates.")
        for account in self.accounts:
            lines += [f"{_name(account)}: {gap.events} {_told(gap.of_class)}: {gap.reason}" for gap in account.gaps]
            holes = [f"missing {hole.first_seq} to {hole.last_seq}: {hole.why}" for hole in account.holes]
            lines += _first(f"{_name(account)}: ", holes) + _first(f"{_name(account)}: ", account.doubles)
        lines += _first("", self.all_breaches)
        return "\n".join([*lines, self.verdict()])

    def verdict(self) -> str:
        """Say in one sentence how it stands."""
        accepted, in_flight = self.total("accepted"), self.total("in_flight")
        asked = _asked(self.period)
        if self.ok:
            done = f"OK: each of {accepted} accepted events{asked} is accounted for, none missing, none doubled"
            return f"{done}; {in_flight} are still in flight." if in_flight else f"{done}."
        missing, doubled, wrong = self.total("missing"), self.total("duplicated"), len(self.all_breaches)
        found = f"BREACH: of {accepted} accepted events{asked} {missing} are missing and {doubled} doubled"
        return (
            f"{found}, and {wrong} {'thing does' if wrong == 1 else 'things do'} not agree." if wrong else f"{found}."
        )


_COLUMNS: Final = (
    *("accepted", "archived", "in_flight", "deduplicated", "dead_lettered", "erased", "missing"),
    *("duplicated", "refused", "dropped"),
)


def _number(account: Account, name: str) -> int:
    found = next((count for state, count in account.counts.items() if state == name), None)
    return int(getattr(account, name)) if found is None else found


def _name(account: Account) -> str:
    return f"{account.producer} epoch {account.epoch}"


def _shown(number: int) -> str:
    # Zeros are what one wants to see everywhere but in two columns; a dot lets the others stand out.
    return str(number) if number else "."


def _told(of_class: str | None) -> str:
    names = {"served": "served events dropped", "feedback": "feedback events refused"}
    return names.get(of_class or "", "accepted events lost")


def _first(name: str, sentences: Sequence[str]) -> list[str]:
    shown = [f"{name}{sentence}" for sentence in sentences[:_MOST_SHOWN]]
    more = len(sentences) - _MOST_SHOWN
    return [*shown, f"{name}and {more} more, all of them in --json"] if more > 0 else shown


def _asked(period: Period) -> str:
    start = f" from {period.start}" if period.start else ""
    return start + (f" to {period.end}" if period.end else "")
