import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from telemetry.archive.archive import Archive
from telemetry.archive.archive_files import DEAD_LETTERS
from telemetry.archive.archive_reader import committed_files, read
from telemetry.archive.dead_letters import Letter, compose, letters
from telemetry.archive.parquet_file import read_lines, write_lines
from telemetry.batch import Batch
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import CommitContent, ErasureRequest, FileLength, Progress, RemovedRun
from telemetry.consumer.consumer import Consumer
from telemetry.erasure.erasure import Receipt, digest, receipts
from telemetry.erasure.erasure_requests import Erasures
from telemetry.erasure.rewriting import LineMatcher, holds, rewrite, sweep
from telemetry.errors import ArchiveError
from telemetry.events import System, decode, encode
from telemetry.notes import ConsumerNote, EraseFailed, UserErased
from telemetry.settings import ConsumerSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from tests.support import sample_events

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
DAY = "date=2026-11-21"
BEFORE, REQUESTED, AFTER = (f"2026-11-21T01:02:03.{ms}Z" for ms in (456, 500, 501))
WHO = 'zoë "the\\ owl"'


def line(seq: int, user_id: str | None, received_at: str = BEFORE, *, served: bool = False) -> bytes:
    changes: dict[str, Any] = {"event_id": f"ev-p-{seq:06d}", "user_id": user_id, "received_at": received_at}
    # The item is called like the user, so that everybody's feedback holds the name.
    return encode(
        sample_events.served(**changes) if served else sample_events.feedback(**changes, item_id=WHO), "p", 1, seq
    )


def erase(seq: int, user_id: str = WHO, requested_at: str = REQUESTED, name: str = "erase-000001") -> bytes:
    event = System(
        event_id=name, tenant="default", client_time=None, received_at=requested_at, kind="erase", user_id=user_id
    )
    return encode(event, "p", 1, seq)


class Models:
    """Another holder of users, which may fail first."""

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
        self.notes: list[ConsumerNote] = []
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

    def receipts(self) -> list[Receipt]:
        return receipts(self.root)

    def done(self) -> bool:
        return bool(self.receipts()) and all(receipt.done_at for receipt in self.receipts())

    def account(self) -> tuple[dict[tuple[str, int], Progress], list[RemovedRun]]:
        catalogue = Catalogue(self.root)
        try:
            return catalogue.progress(), catalogue.removed()
        finally:
            catalogue.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path / "archive")
    yield site
    await site.stop()


async def test_a_user_is_erased_from_files_letters_and_elsewhere(site: Site, await_until: AwaitUntil) -> None:
    """Their lines go, everybody else's stay byte for byte, and the account says what became of each number."""
    torn = line(4, WHO)[:-9] + b"\n"
    batch = [line(1, WHO), line(2, "43"), line(3, WHO, served=True), torn, b"nonsense\n", line(6, WHO, AFTER)]
    await site.append(1, *batch, erase(7), line(8, None, served=True))
    consumer = site.start()
    await await_until(site.done)
    who = digest(site.root, WHO)
    hidden = erase(7, f"digest:{who}")
    assert list(read(site.root, stored=True)) == [batch[1], batch[5], hidden, line(8, None, served=True)]
    assert [letter.data for letter in letters(site.root)] == [b"nonsense\n"]
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
    assert (receipt.erase_id, receipt.user_digest, receipt.requested_at) == ("erase-000001", who, REQUESTED)
    assert (receipt.events, receipt.files, receipt.models) == (3, 2, 2)
    assert site.models.asked == [WHO]
    await await_until(lambda: UserErased("erase-000001", 2) in site.notes)
    assert (consumer.counters.erased, consumer.counters.users_erased) == (3, 1)
    # Neither the catalogue nor its journal has the name any more, while the consumer runs.
    named = {path.name for path in site.root.glob("*") if path.is_file() and "zoë".encode() in path.read_bytes()}
    assert named == set()


async def test_what_comes_too_late_is_not_archived_and_who_comes_back_is(site: Site, await_until: AwaitUntil) -> None:
    """Events received before the request and delivered after it are counted as erased, also by the next consumer."""
    await site.append(1, erase(1))
    site.start()
    await await_until(site.done)
    await site.append(2, line(2, WHO), line(3, WHO, REQUESTED, served=True), line(4, WHO, AFTER))
    await await_until(lambda: site.account()[0]["p", 1].seq == 4)
    await site.stop()
    site.start()
    await site.append(5, line(5, WHO), line(6, "43"))
    await await_until(lambda: site.account()[0]["p", 1].seq == 6)
    assert [decode(text).seq for text in read(site.root)] == [1, 4, 6]
    progress, removed = site.account()
    assert progress == {("p", 1): Progress(6, archived=3, erased=3)}
    assert removed == [
        RemovedRun("p", 1, 2, 3, "erased", REQUESTED),
        RemovedRun("p", 1, 5, 5, "erased", BEFORE),
    ]
    assert not await _remembers(site.root, "ev-p-000002")


async def _remembers(root: Path, event_id: str) -> bool:
    catalogue = Catalogue(root)
    try:
        return bool(catalogue.seen([("default", event_id)]))
    finally:
        catalogue.close()


async def test_a_user_who_came_back_is_erased_again(site: Site, await_until: AwaitUntil) -> None:
    """Two erases, two receipts; the second one finds what came between them, in a file that was rewritten before."""
    later = AFTER.replace("501", "900")
    await site.append(1, line(1, "43"), line(2, WHO), erase(3), line(4, WHO, AFTER))
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


async def test_an_erase_of_a_stranger_seals_and_writes_no_file(site: Site, await_until: AwaitUntil) -> None:
    """What comes of them later, within the window, is not archived all the same."""
    await site.append(1, line(1, "43"), erase(2))
    site.start()
    await await_until(site.done)
    await site.append(3, line(3, WHO), line(4, "43"))
    await await_until(lambda: site.account()[0]["p", 1].seq == 4)
    (file,) = committed_files(site.root)
    assert (file.path.name, file.lines) == ("part-00000001-000000.jsonl", 3)
    assert site.account()[0] == {("p", 1): Progress(4, archived=3, erased=1)}


async def test_receipts_of_strangers_go_after_the_window_and_beyond_a_number(archive: Archive) -> None:
    """Those that erased something stay, and so does what is still open."""

    async def erased(name: str, models: int | None) -> None:
        await archive.commit(CommitContent(erasures=[ErasureRequest(name, name, name, REQUESTED)]))
        if models is not None:
            await archive.finish_erasures({name: models})

    await erased("open", None)
    await erased("known", 1)
    for name in ("empty-1", "empty-2"):
        await erased(name, 0)
    assert await archive.expire_erasures(7) == 0
    database = Catalogue(archive.root)
    erasures = Erasures(database.database)
    assert erasures.expire(1, "2000-01-01T00:00:00.000Z", most=1) == 1
    assert len(receipts(archive.root)) == 3
    assert erasures.expire(1, "2999-01-01T00:00:00.000Z") == 1
    assert [one.erase_id for one in receipts(archive.root)] == ["known", "open"]
    database.close()


async def test_an_erasure_is_open_until_everybody_has_forgotten(site: Site, await_until: AwaitUntil) -> None:
    """A user_eraser that fails is told and asked again; until then the receipt is not done."""
    site.models.failures = 2
    await site.append(1, line(1, WHO), erase(2))
    site.start()
    await await_until(lambda: len([note for note in site.notes if isinstance(note, EraseFailed)]) >= 1)
    assert not site.done()
    await await_until(site.done)
    assert site.models.asked == [WHO] * 3
    assert EraseFailed("models", "RuntimeError: not now") in site.notes


async def test_the_next_holder_of_the_lease_goes_on(site: Site, await_until: AwaitUntil) -> None:
    """Stopped in the middle, an erasure is still open, and the successor finishes it."""
    site.models.failures = 1_000_000
    await site.append(1, line(1, WHO), line(2, "43"), erase(3))
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


async def test_events_go_on_while_users_are_forgotten(site: Site, await_until: AwaitUntil) -> None:
    """A user_eraser that hangs holds up no commit."""
    site.models.hanging = asyncio.Event()
    await site.append(1, erase(1))
    site.start()
    await await_until(lambda: site.models.asked)
    await site.append(2, line(2, "43"))
    await await_until(lambda: site.account()[0]["p", 1].archived == 2)
    site.models.hanging.set()
    await await_until(site.done)


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    archive = Archive(tmp_path)
    await archive.acquire(1.0)
    yield archive
    await archive.close()


USERS = LineMatcher([ErasureRequest("erase-000001", WHO, "-", REQUESTED)])


async def _commit(archive: Archive, *lines: bytes, folder: str = DAY) -> None:
    seq = archive.watermarks["p"].seq + len(lines) if archive.watermarks else len(lines)
    added = CommitContent({folder: list(lines)}, {("p", 1): Progress(seq, archived=len(lines))})
    await archive.commit(added)


async def test_a_crash_before_the_transaction_leaves_the_old_file(tmp_path: Path, archive: Archive) -> None:
    """The new file means nothing and is removed, by the next holder of the lease or the next sweep."""
    await _commit(archive, line(1, WHO), line(2, "43"))
    await archive.seal()
    ((path, length),) = (await archive.sealed_files()).items()
    for clean_up in ("sweep", "lease"):
        replacement = rewrite(tmp_path, 1, path, length, USERS)
        assert replacement is not None
        new = tmp_path / replacement.new[0]
        assert new.read_bytes() == line(2, "43")
        assert list(read(tmp_path)) == [line(1, WHO), line(2, "43")]
        if clean_up == "sweep":
            assert sweep(tmp_path, 1, archive.part)
        else:
            await archive.release()
            await archive.acquire(1.0)
        assert not new.exists()
    assert list(read(tmp_path)) == [line(1, WHO), line(2, "43")]


async def test_a_crash_after_the_transaction_leaves_the_new_file(tmp_path: Path, archive: Archive) -> None:
    """The old one is a leftover by then, whoever wrote it, and does not survive the sweep."""
    await _commit(archive, line(1, WHO), line(2, "43"))
    await archive.seal()
    ((path, length),) = (await archive.sealed_files()).items()
    replacement = rewrite(tmp_path, 1, path, length, USERS)
    assert replacement is not None
    assert await archive.replace(replacement)
    assert not await archive.replace(replacement)
    assert list(read(tmp_path)) == [line(2, "43")]
    await _commit(archive, line(3, "43"))
    assert (tmp_path / path).exists()
    compacting = os.open(tmp_path / "compact.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(compacting, fcntl.LOCK_EX)
    assert not sweep(tmp_path, 1, archive.part)
    os.close(compacting)
    later = (archive.part.replace("000001.", "000002."), "part-00000002-000000.jsonl", "x.rewritten-00000002-1.parquet")
    others = [tmp_path / DAY / name for name in later]
    for other in [*others, tmp_path / DAY / "compact-1.parquet"]:
        other.touch()
    assert sweep(tmp_path, 1, archive.part)
    assert all(other.exists() for other in others)
    assert not (tmp_path / DAY / "compact-1.parquet").exists()
    assert not (tmp_path / path).exists()
    assert list(read(tmp_path)) == [line(2, "43"), line(3, "43")]


async def test_a_file_that_was_replaced_meanwhile_is_not_replaced_again(tmp_path: Path, archive: Archive) -> None:
    """Compaction and erasing may meet; who comes second changes nothing."""
    await _commit(archive, line(1, WHO), line(2, "43"))
    await archive.seal()
    ((path, length),) = (await archive.sealed_files()).items()
    replacement = rewrite(tmp_path, 1, path, length, USERS)
    assert replacement is not None
    other = replacement.new[1]
    catalogue = Catalogue(tmp_path)
    catalogue.database.sql.execute("UPDATE files SET path = 'date=2026-11-21/compact-1.parquet'")
    assert not await archive.replace(replacement)
    assert catalogue.files() == {"date=2026-11-21/compact-1.parquet": length}
    assert catalogue.progress()["p", 1].archived == 2
    assert other == FileLength(len(line(2, "43")), 1)
    catalogue.close()


async def test_a_compacted_file_is_rewritten_as_such(tmp_path: Path, archive: Archive) -> None:
    """Parquet stays Parquet, with the exact bytes of every other line."""
    lines = [line(1, WHO), line(2, "43"), line(3, WHO, AFTER)]
    (tmp_path / DAY).mkdir()
    path = f"{DAY}/compact-1.parquet"
    write_lines(tmp_path / path, lines)
    length = FileLength((tmp_path / path).stat().st_size, 3)
    replacement = rewrite(tmp_path, 7, path, length, USERS)
    assert replacement is not None
    assert replacement.new[0] == f"{DAY}/compact-1.rewritten-00000007-1.parquet"
    assert list(read_lines(tmp_path / replacement.new[0])) == lines[1:]
    assert replacement.new[1] == FileLength((tmp_path / replacement.new[0]).stat().st_size, 2)
    again = rewrite(tmp_path, 8, *replacement.new, users=USERS)
    assert again is None
    assert sorted(file.name for file in (tmp_path / DAY).iterdir()) == [
        "compact-1.parquet",
        "compact-1.rewritten-00000007-1.parquet",
    ]


def test_a_user_is_recognised_however_their_id_is_written() -> None:
    """By what the line says, not by how it spells it; and nobody is taken for somebody else."""
    users = LineMatcher([ErasureRequest("e", "42", "-", REQUESTED)])
    plain = line(1, "42", served=True)
    assert users.of(plain) is not None
    assert users.of(plain.replace(b'"user_id":"42"', b'"user_id": "\\u0034\\u0032"')) is not None
    for other in ("421", "142", "4", "recommendation 42"):
        assert users.of(line(1, other, served=True)) is None
    # The item is 42; the user is not.
    assert users.of(encode(sample_events.feedback(user_id="7", item_id="42"), "p", 1, 1)) is None
    assert users.of(b'{"user_id":["42"],"received_at":"2026"}\n') is None
    assert users.of(b"42") is None


async def test_a_backslash_or_a_user_who_came_back_causes_no_writing(tmp_path: Path) -> None:
    """Only a line that is to go makes a new file, in plain text and compacted."""
    lines = [line(1, 'a\\b"'), line(2, WHO, AFTER), line(3, "43")]
    (tmp_path / DAY).mkdir()
    plain, packed = f"{DAY}/part-00000001-000000.jsonl", f"{DAY}/compact-1.parquet"
    (tmp_path / plain).write_bytes(b"".join(lines))
    write_lines(tmp_path / packed, lines)
    for path in (plain, packed):
        length = FileLength((tmp_path / path).stat().st_size, 3)
        assert not holds(tmp_path, path, length, USERS)
        assert rewrite(tmp_path, 1, path, length, USERS) is None
        assert holds(tmp_path, path, length, LineMatcher([ErasureRequest("e", "43", "-", REQUESTED)]))
    assert len(list((tmp_path / DAY).iterdir())) == 2


def test_a_file_of_many_megabytes_is_searched_across_its_chunks(tmp_path: Path) -> None:
    """An id that lies across two reads is found, and one beyond the committed length is not."""
    user = "u" * 100
    users = LineMatcher([ErasureRequest("e", user, "-", REQUESTED)])
    hit, miss = line(2, user, served=True), line(1, "43", served=True)
    (tmp_path / DAY).mkdir()
    path = f"{DAY}/part-00000001-000000.jsonl"
    padding = b"x" * (1024 * 1024 - hit.index(b"uuuu") - 50 - 1) + b"\n"
    (tmp_path / path).write_bytes(padding + hit + miss)
    replacement = rewrite(tmp_path, 1, path, FileLength(len(padding + hit + miss), 3), users)
    assert replacement is not None
    assert (tmp_path / replacement.new[0]).read_bytes() == padding + miss
    assert rewrite(tmp_path, 1, path, FileLength(len(padding), 1), users) is None
    assert [file.name for file in (tmp_path / DAY).iterdir()].count("part-00000001-000000.jsonl") == 1


def test_a_whole_entry_among_the_letters_goes_if_any_line_in_it_is_theirs(tmp_path: Path) -> None:
    """Readable or not, as text or not; its numbers are taken out of the run they were buried in."""
    letter = Letter("l-1", BEFORE, "p", "1-9", 5, None, "checksum", 1, b"")

    def lettered(name: str, data: bytes) -> bytes:
        return compose(Letter(name, BEFORE, "p", "1-9", 5, None, "checksum", 1, data))

    kept = [lettered("l-1", line(5, "43")), lettered("l-2", b"\xff" + line(5, "43")), b"{not a letter}\n"]
    gone = [lettered("l-3", line(5, "43") + line(6, WHO)), lettered("l-4", b"\xff" + line(6, WHO))]
    (tmp_path / DEAD_LETTERS).mkdir()
    path = f"{DEAD_LETTERS}/part-00000001-000000.jsonl"
    content = b"".join([*kept, *gone])
    (tmp_path / path).write_bytes(content)
    replacement = rewrite(tmp_path, 1, path, FileLength(len(content), 5), USERS)
    assert replacement is not None
    assert (tmp_path / replacement.new[0]).read_bytes() == b"".join(kept)
    assert letter.numbers == (1, range(5, 10))
    assert replacement.letters


async def test_one_damaged_file_keeps_the_erasure_open_and_the_others_are_rewritten(
    site: Site, await_until: AwaitUntil
) -> None:
    """It is told; whoever mends or removes the file lets the erasure end."""
    await site.append(1, line(1, WHO))
    site.start()
    await await_until(lambda: list(read(site.root)))
    await site.stop()
    (damaged,) = [file.path for file in committed_files(site.root)]
    content = damaged.read_bytes()
    damaged.unlink()
    site.start()
    await site.append(2, line(2, WHO), erase(3))
    await await_until(lambda: any(isinstance(note, EraseFailed) for note in site.notes))
    assert not site.done()
    newest = max(file.path for file in committed_files(site.root))
    assert [decode(text).seq for text in newest.read_bytes().splitlines()] == [3]
    damaged.write_bytes(content)
    await await_until(site.done)
    assert [decode(text).seq for text in read(site.root)] == [3]


def test_receipts_and_digests_need_an_archive(tmp_path: Path) -> None:
    """Nothing was forgotten where nothing is; a digest cannot be computed without the archive's salt."""
    assert receipts(tmp_path) == []
    with pytest.raises(ArchiveError, match="no catalogue yet"):
        digest(tmp_path, WHO)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Catalogue(tmp_path / folder).close()
    assert digest(tmp_path / "one", WHO) == digest(tmp_path / "one", WHO) != digest(tmp_path / "two", WHO)


async def test_old_erasures_are_not_looked_up_any_more(archive: Archive) -> None:
    """What is older than the window costs no event anything; an open one always counts."""
    nobody = await archive.forgotten(7, [WHO])
    assert not nobody
    erasure = ErasureRequest("erase-000001", WHO, nobody.digest(WHO), REQUESTED)
    await archive.commit(CommitContent(erasures=[erasure]))
    assert await archive.forgotten(7, ["43", WHO])
    assert not await archive.forgotten(7, ["43"])
    await archive.finish_erasures({"erase-000001": 0})
    assert await archive.forgotten(7, [WHO])
    assert not await archive.forgotten(-1, [WHO])
