import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path

import pytest

from telemetry.archive.archive import Archive
from telemetry.archive.archive_reader import committed_files, read
from telemetry.archive.archive_snapshot import open_snapshot
from telemetry.archive.dead_letters import read_letters
from telemetry.batch import Batch
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import Progress, RemovedRun
from telemetry.consumer.consumer import Consumer
from telemetry.erasure.erasure import ErasureReceipt, read_receipts, user_digest
from telemetry.events import decode
from telemetry.notes import EraseFailed, Note, UserErased
from telemetry.settings import ConsumerSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from tests.support.archives.erasures import AFTER, BEFORE, REQUESTED, USER, erase, line

AwaitUntil = Callable[..., Awaitable[None]]
QUICK = ConsumerSettings(
    discover_interval_s=0.05,
    block_ms=20,
    commit_interval_s=0.0,
    heartbeat_s=0.1,
    takeover_s=0.6,
    backoff_s=0.1,
    erase_interval_s=0.0,
)


class Models:
    """A user eraser that may fail first."""

    name = "models"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.rounds = 0
        self.failures = 0
        self.hanging: asyncio.Event | None = None

    async def erase(self, user_ids: Collection[str]) -> dict[str, int]:
        self.asked += sorted(user_ids)
        self.rounds += 1
        if self.hanging is not None:
            await self.hanging.wait()
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not now")
        return dict.fromkeys(user_ids, 2)


class Site:
    """A consumer of one archive, fed by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server = MemoryServer()
        self.models = Models()
        self.notes: list[Note] = []
        self.task: asyncio.Task[None] | None = None
        self._writer = MemoryStream(self.server)

    async def append(self, first_seq: int, *lines: bytes) -> None:
        await self._writer.connect()
        await self._writer.handshake("p", 1.0)
        await self._writer.append("p", Batch(1, first_seq, lines), create=first_seq == 1)

    def start(self) -> Consumer:
        consumer = Consumer(
            MemoryStream(self.server), Archive(self.root), [], QUICK, self.notes.append, user_erasers=[self.models]
        )
        self.task = asyncio.create_task(consumer.run())
        return consumer

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def receipts(self) -> list[ErasureReceipt]:
        return read_receipts(self.root)

    def done(self) -> bool:
        return bool(self.receipts()) and all(receipt.done_at for receipt in self.receipts())

    def account(self) -> tuple[dict[tuple[str, int], Progress], list[RemovedRun]]:
        with open_snapshot(self.root) as archive:
            return dict(archive.progress), list(archive.removed)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path / "archive")
    yield site
    await site.stop()


async def test_a_user_is_erased_from_files_letters_and_elsewhere(site: Site, await_until: AwaitUntil) -> None:
    """The user's lines go, all others stay byte for byte, and the counts cover each number."""
    torn = line(4, USER)[:-9] + b"\n"
    batch = [
        line(1, USER),
        line(2, "43"),
        line(3, USER, served=True),
        torn,
        b"nonsense\n",
        line(6, USER, AFTER),
    ]
    await site.append(1, *batch, erase(7), line(8, None, served=True))
    consumer = site.start()
    await await_until(site.done)
    digest = user_digest(site.root, USER)
    hidden = erase(7, f"digest:{digest}")
    assert list(read(site.root, stored=True)) == [batch[1], batch[5], hidden, line(8, None, served=True)]
    assert [letter.data for letter in read_letters(site.root)] == [b"nonsense\n"]
    assert site.account() == (
        {("p", 1): Progress(8, archived=4, dead_lettered=1, erased=3)},
        [
            RemovedRun("p", 1, 1, 1, "erased", BEFORE),
            RemovedRun("p", 1, 3, 3, "erased", BEFORE),
            RemovedRun("p", 1, 4, 4, "erased", None),
            RemovedRun("p", 1, 5, 5, "dead_lettered", None),
        ],
    )
    (receipt,) = site.receipts()
    assert (receipt.erase_id, receipt.user_digest, receipt.requested_at) == ("erase-000001", digest, REQUESTED)
    assert (receipt.events, receipt.files, receipt.models) == (3, 2, 2)
    assert site.models.asked == [USER]
    await await_until(lambda: UserErased("erase-000001", 2) in site.notes)
    assert (consumer.counters.erased, consumer.counters.users_erased) == (3, 1)
    # Neither the catalogue nor its journal has the name any more, while the consumer runs.
    named = {path.name for path in site.root.glob("*") if path.is_file() and "zoë".encode() in path.read_bytes()}
    assert named == set()


async def test_late_events_are_discarded_and_events_of_a_user_who_came_back_are_not(
    site: Site, await_until: AwaitUntil
) -> None:
    """Events received before the request and delivered after it are counted as erased, also by the next consumer."""
    await site.append(1, erase(1))
    site.start()
    await await_until(site.done)
    await site.append(2, line(2, USER), line(3, USER, REQUESTED, served=True), line(4, USER, AFTER))
    await await_until(lambda: site.account()[0]["p", 1].seq == 4)
    await site.stop()
    site.start()
    await site.append(5, line(5, USER), line(6, "43"))
    await await_until(lambda: site.account()[0]["p", 1].seq == 6)
    assert [decode(text).seq for text in read(site.root)] == [1, 4, 6]
    progress, removed = site.account()
    assert progress == {("p", 1): Progress(6, archived=3, erased=3)}
    assert removed == [
        RemovedRun("p", 1, 2, 3, "erased", REQUESTED),
        RemovedRun("p", 1, 5, 5, "erased", BEFORE),
    ]
    assert not await _is_seen(site.root, "ev-p-000002")


async def _is_seen(root: Path, event_id: str) -> bool:
    catalogue = Catalogue(root)
    try:
        return bool(catalogue.seen_fingerprints([("default", event_id)]))
    finally:
        catalogue.close()


async def test_a_user_who_came_back_is_erased_again(site: Site, await_until: AwaitUntil) -> None:
    """Two erases, two receipts; the second one finds what came between them, in a file that was rewritten before."""
    later = AFTER.replace("501", "900")
    await site.append(1, line(1, "43"), line(2, USER), erase(3), line(4, USER, AFTER))
    site.start()
    await await_until(site.done)
    await site.append(5, erase(5, requested_at=later, name="erase-000002"))
    await await_until(lambda: len(site.receipts()) == 2 and site.done())
    assert [(receipt.erase_id, receipt.events) for receipt in site.receipts()] == [
        ("erase-000001", 1),
        ("erase-000002", 1),
    ]
    assert [decode(text).seq for text in read(site.root)] == [1, 3, 5]
    assert site.account()[0] == {("p", 1): Progress(5, archived=3, erased=2)}


async def test_many_users_are_erased_in_one_round(site: Site, await_until: AwaitUntil) -> None:
    """Each file is rewritten once and each holder asked once, and every user has a receipt of their own."""
    users = [f"u{number:03d}" for number in range(50)]
    lines = [line(seq, user) for seq, user in enumerate([*users, *users], 1)]
    await site.append(1, *lines, *(erase(101 + n, user, name=f"erase-{n:06d}") for n, user in enumerate(users)))
    site.start()
    await await_until(lambda: len(site.receipts()) == 50 and site.done())
    assert (site.models.asked, site.models.rounds) == (users, 1)
    assert {(receipt.events, receipt.files, receipt.models) for receipt in site.receipts()} == {(2, 1, 2)}
    (file,) = committed_files(site.root)
    assert file.path.name.endswith(".rewritten-00000001-1.jsonl")
    assert site.account()[0] == {("p", 1): Progress(150, archived=50, erased=100)}


async def test_an_erase_of_an_unknown_user_seals_and_writes_no_file(site: Site, await_until: AwaitUntil) -> None:
    """Late events of the user are not archived all the same."""
    await site.append(1, line(1, "43"), erase(2))
    site.start()
    await await_until(site.done)
    await site.append(3, line(3, USER), line(4, "43"))
    await await_until(lambda: site.account()[0]["p", 1].seq == 4)
    (file,) = committed_files(site.root)
    assert (file.path.name, file.lines) == ("part-00000001-000000.jsonl", 3)
    assert site.account()[0] == {("p", 1): Progress(4, archived=3, erased=1)}


async def test_an_erasure_is_open_until_every_user_eraser_is_done(site: Site, await_until: AwaitUntil) -> None:
    """A failing user eraser is called again; until then the receipt is not done."""
    site.models.failures = 2
    await site.append(1, line(1, USER), erase(2))
    site.start()
    await await_until(lambda: len([note for note in site.notes if isinstance(note, EraseFailed)]) >= 1)
    assert not site.done()
    await await_until(site.done)
    assert site.models.asked == [USER] * 3
    assert EraseFailed("models", "RuntimeError: not now") in site.notes


async def test_the_next_lease_holder_continues(site: Site, await_until: AwaitUntil) -> None:
    """Stopped in the middle, an erasure is still open, and the successor finishes it."""
    site.models.failures = 1_000_000
    await site.append(1, line(1, USER), line(2, "43"), erase(3))
    site.start()
    await await_until(lambda: site.models.asked)
    await site.stop()
    assert [decode(text).seq for text in read(site.root)] == [2, 3]
    assert not site.done()
    site.models.failures = 0
    site.start()
    await await_until(site.done)
    (receipt,) = site.receipts()
    assert (receipt.events, receipt.files) == (1, 1)


async def test_events_are_archived_while_users_are_erased(site: Site, await_until: AwaitUntil) -> None:
    """A hanging user eraser holds up no commit."""
    site.models.hanging = asyncio.Event()
    await site.append(1, erase(1))
    site.start()
    await await_until(lambda: site.models.asked)
    await site.append(2, line(2, "43"))
    await await_until(lambda: site.account()[0]["p", 1].archived == 2)
    site.models.hanging.set()
    await await_until(site.done)


async def test_one_damaged_file_keeps_the_erasure_open_and_the_others_are_rewritten(
    site: Site, await_until: AwaitUntil
) -> None:
    """It is reported; once the file is repaired or removed, the erasure ends."""
    await site.append(1, line(1, USER))
    site.start()
    await await_until(lambda: list(read(site.root)))
    await site.stop()
    (damaged,) = [file.path for file in committed_files(site.root)]
    content = damaged.read_bytes()
    damaged.unlink()
    site.start()
    await site.append(2, line(2, USER), erase(3))
    await await_until(lambda: any(isinstance(note, EraseFailed) for note in site.notes))
    assert not site.done()
    newest = max(file.path for file in committed_files(site.root))
    assert [decode(text).seq for text in newest.read_bytes().splitlines()] == [3]
    damaged.write_bytes(content)
    await await_until(site.done)
    assert [decode(text).seq for text in read(site.root)] == [3]
