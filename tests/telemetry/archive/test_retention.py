"""Which dates retention removes, and that the account stays true, whatever is killed on the way."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from ops.commands.archive_list import as_text, list_folders
from ops.commands.audit import audit
from ops.console.progress import StageProgress
from ops.console.receipt import AuditReceipt
from ops.options.period import Period
from service.config import Config
from service.training.data.formats.archived_events import fingerprint
from telemetry.archive.archive import Archive
from telemetry.archive.archive_reader import read
from telemetry.archive.compaction import compact
from telemetry.archive.retention import due_dates
from telemetry.catalogue.commit import FileLength
from telemetry.consumer.context import ConsumerContext
from telemetry.consumer.retention_job import RetentionJob
from telemetry.errors import FailpointError
from telemetry.failpoints import Failpoints
from telemetry.notes import DateRetired, Note, RetentionBehind
from telemetry.settings import ConsumerSettings
from tests.support.archives.archive_commits import addition, commit, line, seal
from tests.support.sample_events import feedback, served

TODAY = "2026-11-25"
NOON_S = datetime.fromisoformat(f"{TODAY}T12:00:00Z").timestamp()
# The numbers of one producer run over the dates, with a duplicate in between.
EVENTS = [
    (
        seq,
        (feedback if seq % 2 else served)(
            event_id=f"event-{seq}", recommendation_id=f"event-{seq}", received_at=f"2026-11-2{day}T01:02:03.456Z"
        ),
    )
    for seq, day in ((1, 1), (2, 1), (4, 1), (5, 2), (6, 2), (7, 3), (8, 4), (9, 5))
]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Five dates; those of the first two are compacted."""
    config = Config(home=tmp_path / "var")
    commit(config.archive_dir, addition(EVENTS, [(3, "deduplicated"), (10, "dead_lettered")]))
    seal(config.archive_dir)
    list(compact(config.archive_dir, "2026-11-23"))
    return config


@pytest.fixture
def retain(config: Config) -> Callable[..., list[Note]]:

    def call(failpoint: str = "", **limits: int) -> list[Note]:
        notes: list[Note] = []

        async def work() -> None:
            archive = Archive(config.archive_dir, wall_clock=lambda: NOON_S)
            try:
                await archive.acquire(1.0)
                settings = ConsumerSettings(**limits)
                job = RetentionJob(archive, ConsumerContext(settings, notes.append, Failpoints.parse(failpoint)))
                await job.remove_due()
            finally:
                await archive.close()

        asyncio.run(work())
        return notes

    return call


def seqs(config: Config) -> list[int]:
    stored = list(read(config.archive_dir, stored=True))
    return [seq for seq, event in EVENTS if line(event, seq) in stored]


def receipt(config: Config, period: Period = Period()) -> AuditReceipt:  # noqa: B008 - it cannot be changed
    return audit(config, period)


LENGTHS = {
    **{f"date=2026-11-2{day}/compact-1.parquet": FileLength(100, 1) for day in (1, 2)},
    "date=2026-11-20/part-1.jsonl": FileLength(1000, 1),
    "date=2026-11-23/part-1.jsonl": FileLength(1000, 1),
    "date=2026-11-24/part-2.jsonl": FileLength(1000, 1),
    "date=2026-11-25/part-2.jsonl": FileLength(1000, 1),
    "deadletters/part-1.jsonl": FileLength(10, 1),
}


@pytest.mark.parametrize(
    ("days", "size_bytes", "gone", "excess_bytes"),
    [
        (0, 0, [], 0),
        (-1, -1, [], 0),
        (1_000, 0, [], 0),
        (3, 0, ["20", "21"], 0),
        # The newest complete date has a part that grows, and today never goes.
        (1, 0, ["20", "21", "22", "23"], 0),
        (0, 4_210, [], 0),
        (0, 4_209, ["21"], 0),
        (0, 4_100, ["21", "22"], 0),
        # Nothing that is not compacted goes for its size.
        (0, 1, ["21", "22"], 4_009),
        (3, 3_110, ["20", "21"], 0),
        (3, 3_109, ["20", "21", "22"], 0),
    ],
)
def test_what_is_due(days: int, size_bytes: int, gone: list[str], excess_bytes: int) -> None:
    """By age all complete dates, by size the oldest compacted ones and no more than needed."""
    plan = due_dates(LENGTHS, {"date=2026-11-24/part-2.jsonl"}, TODAY, days, size_bytes)
    assert ([day[-2:] for day in plan.days], plan.excess_bytes) == (gone, excess_bytes)


def test_old_dates_go_and_the_account_stays_true(config: Config, retain: Callable[..., list[Note]]) -> None:
    """Compacted or not; the receipt and the list report it, also for a period."""
    before, identity = receipt(config), fingerprint(config.archive_dir)
    size_bytes = sum(path.stat().st_size for path in config.archive_dir.glob("date=2026-11-21/*"))
    assert retain(retention_days=2)[0] == DateRetired("2026-11-21", 3, size_bytes)
    assert seqs(config) == [7, 8, 9]
    assert not (config.archive_dir / "date=2026-11-21").exists()
    after = receipt(config)
    assert after.ok
    assert (after.total("archived"), after.total("retired")) == (before.total("archived"), 5)
    assert after.as_json()["retired"] == 5
    assert "Retention has removed 5 of the archived events" in after.as_text()
    of_a_day = receipt(config, Period.parse("2026-11-22", "2026-11-22"))
    assert (of_a_day.ok, of_a_day.total("archived"), of_a_day.total("retired")) == (True, 2, 2)
    with StageProgress() as stages:
        found = list_folders(config.archive_dir, stages)
    assert [(folder.name[-2:], folder.files, folder.retired) for folder in found[:3]] == [
        ("21", 0, 3),
        ("22", 0, 2),
        ("23", 1, 0),
    ]
    assert as_text(found).endswith("Retention has removed 5 events of 2 dates up to 2026-11-22.")
    assert fingerprint(config.archive_dir) != identity
    assert retain(retention_days=2) == []
    # Not compacted, and older than is kept.
    retain(retention_days=1)
    assert (seqs(config), receipt(config).ok, receipt(config).total("retired")) == ([8, 9], True, 6)


def test_only_compacted_dates_go_by_size(config: Config, retain: Callable[..., list[Note]]) -> None:
    """The reason why the archive stays too large is reported, with the remedy."""
    notes = retain(retention_bytes=1)
    assert seqs(config) == [7, 8, 9]
    assert isinstance(notes[-1], RetentionBehind)
    assert "recollect archive compact" in notes[-1].why


@pytest.mark.parametrize("step", ["retention.read", "retention.committed"])
def test_a_crash_anywhere_leaves_an_archive_that_adds_up(
    config: Config, retain: Callable[..., list[Note]], step: str
) -> None:
    """Before the transaction all is there; after it files are left that do not count, and the next pass takes them."""
    with pytest.raises(FailpointError):
        retain(f"{step}:raise", retention_days=2)
    assert receipt(config).ok
    assert (config.archive_dir / "date=2026-11-21").is_dir()
    assert seqs(config) == ([1, 2, 4, 5, 6, 7, 8, 9] if step == "retention.read" else [5, 6, 7, 8, 9])
    retain(retention_days=2)
    assert (receipt(config).ok, seqs(config)) == (True, [7, 8, 9])
    assert not list(config.archive_dir.glob("date=2026-11-2[12]"))


def test_a_damaged_date_stays_and_keeps_no_other_one(config: Config, retain: Callable[..., list[Note]]) -> None:
    """Its loss must not disappear from the account by being retired."""
    (damaged,) = config.archive_dir.glob("date=2026-11-21/*")
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    with pytest.raises(Exception, match="2026-11-21"):
        retain(retention_days=2)
    assert damaged.exists()
    assert not list(config.archive_dir.glob("date=2026-11-22/*"))


def test_what_comes_late_for_a_date_that_is_gone(config: Config, retain: Callable[..., list[Note]]) -> None:
    """It is archived, and goes with the next pass."""
    retain(retention_days=2)
    late = (11, feedback(event_id="event-11", received_at="2026-11-21T09:00:00.000Z"))
    commit(config.archive_dir, addition([late]))
    seal(config.archive_dir)
    assert receipt(config).ok
    retain(retention_days=2)
    assert (receipt(config).ok, receipt(config).total("retired"), seqs(config)) == (True, 6, [7, 8, 9])
