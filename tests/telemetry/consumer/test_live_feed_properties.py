"""Whatever is killed, lost, erased or reordered: snapshot and feed together are the live state of the archive."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from telemetry.archive.compaction import compact
from telemetry.live.state_manifest import FILE_NAME
from tests.reference.live_state import item_changes, live_state
from tests.support.live.live_follower import LiveFollower
from tests.support.live.live_site import LiveSite, erasure, feedback, item_change

USERS = ("a", "b", "c")
PRODUCERS = ("p", "q", "r")
YESTERDAY_MS = -86_400_000


class LiveStateMachine(RuleBasedStateMachine):
    """One archive with its consumer, a feed, a follower that stays, and followers that begin anew."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = Path(tempfile.mkdtemp(prefix="recollect-live-"))
        self.site = LiveSite(self.home)
        self.follower: LiveFollower = self.site.follower()
        self.clock_ms = 0
        self.erased_ms = dict.fromkeys(USERS, YESTERDAY_MS - 1000)
        self.erasures = 0
        self.wait(self.site.start())

    def wait(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something to its end."""
        self.loop.run_until_complete(asyncio.wait_for(work, 60))

    def teardown(self) -> None:
        """Compare once more, and remove everything."""
        try:
            self.redis_recovers()
            self.everyone_has_the_state_of_the_archive()
            self.wait(self.site.stop())
        finally:
            self.loop.close()
            shutil.rmtree(self.home)

    @rule(
        producer=st.sampled_from(PRODUCERS),
        events=st.lists(st.tuples(st.sampled_from(USERS), st.integers(0, 20), st.booleans()), min_size=1, max_size=6),
        changes=st.lists(st.tuples(st.sampled_from(("i1", "i2")), st.integers(0, 20)), max_size=2),
        dies=st.sampled_from([False, False, False, True]),
    )
    def commit(
        self, producer: str, events: list[tuple[str, int, bool]], changes: list[tuple[str, int]], dies: bool
    ) -> None:
        """Archive events that come late by various times; perhaps the consumer dies before it publishes them."""
        self.clock_ms += 10
        archived = []
        for user, late_ms, is_old in events:
            at_ms = (YESTERDAY_MS if is_old else 0) + self.clock_ms - late_ms
            # Late events of erased users never get this far.
            if at_ms > self.erased_ms[user]:
                archived.append(feedback(user, at_ms))
        archived_changes = [item_change(item, self.clock_ms - late_ms) for item, late_ms in changes]
        self.wait(self.site.commit(producer, *archived, *archived_changes, published=not dies))
        if dies:
            self.restart(kill=True, loss="nothing")

    @rule(producer=st.sampled_from(PRODUCERS), count=st.integers(1, 3))
    def skip(self, producer: str, count: int) -> None:
        """Some events were duplicates."""
        self.wait(self.site.skip(producer, count))

    @rule(kill=st.booleans(), loss=st.sampled_from(["nothing", "nothing", "manifest", "files", "bytes"]))
    def restart(self, kill: bool, loss: str) -> None:
        """The consumer ends in either way, and perhaps its files are lost before the next one begins."""
        self.wait(self.site.kill() if kill else self.site.stop())
        directory = self.site.directory
        if loss == "files":
            shutil.rmtree(directory)
        elif loss == "manifest":
            (directory / FILE_NAME).unlink()
        elif loss == "bytes":
            for path in directory.glob("*.events"):
                path.write_bytes(path.read_bytes()[:-1])
        self.wait(self.site.start())

    @rule()
    def save(self) -> None:
        """A snapshot is due."""
        self.wait(self.site.live._save())

    @rule(days=st.booleans())
    def rewrite_the_archive(self, days: bool) -> None:
        """Files are rotated, and those of yesterday become one."""
        self.wait(self.site.archive.seal())
        if days:
            list(compact(self.site.root, "2026-11-21"))

    @precondition(lambda self: self.site.feed.reachable and not self.site.feed.full)
    @rule(user=st.sampled_from(USERS), producer=st.sampled_from(PRODUCERS))
    def erase(self, user: str, producer: str) -> None:
        """A user is erased, with all events so far."""
        self.clock_ms += 10
        self.erasures += 1
        self.erased_ms[user] = self.clock_ms
        self.wait(self.site.commit(producer, erasure(user, self.clock_ms, f"erase-{self.erasures}")))
        self.wait(self.site.erase_users())

    @rule()
    def flush(self) -> None:
        """Redis loses everything."""
        self.site.feed.flush_all()

    @rule(index=st.integers(0, 50))
    def lose_an_entry(self, index: int) -> None:
        """Somebody trims the feed, or deletes from it."""
        entries = self.site.feed.entries
        if entries:
            del entries[sorted(entries)[index % len(entries)]]

    @rule(reachable=st.booleans(), full=st.booleans())
    def redis_fails(self, reachable: bool, full: bool) -> None:
        """Redis is away or full, until it is not."""
        self.site.feed.reachable, self.site.feed.full = reachable, full

    @rule()
    def redis_recovers(self) -> None:
        """It is there, with room."""
        self.site.feed.reachable, self.site.feed.full = True, False

    @rule()
    def follow(self) -> None:
        """The follower that stays reads once, as far as Redis lets it."""

        async def read() -> None:
            with suppress(Exception):
                await self.follower.reader.connect()
                await self.follower.read()

        self.wait(read())

    @precondition(lambda self: self.site.feed.reachable and not self.site.feed.full)
    @rule()
    def everyone_has_the_state_of_the_archive(self) -> None:
        """The one that stays and a new one, with the same marks."""
        expected = live_state(self.site.root, most=4)
        items = {item: record.event for item, record in item_changes(self.site.root).items()}
        for follower in (self.follower, self.site.follower()):
            self.wait(self.site.catch_up(follower))
            assert follower.state(USERS) == expected
            assert {change.item_id: change for change in follower.items.changes()} == items

    @invariant()
    def nothing_is_wrong_for_good(self) -> None:
        """The job is still at work."""
        assert self.site._task is not None
        assert not self.site._task.done()


TestLiveState = LiveStateMachine.TestCase
TestLiveState.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
