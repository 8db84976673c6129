from dataclasses import replace

from ops.console.receipt import AuditReceipt
from ops.options.period import Period
from telemetry.audit.event_outline import GapCount
from telemetry.audit.reconciliation import EpochAccount
from telemetry.audit.seq_runs import NEVER_CAME, STATES, Hole
from tests.support.archives.archive_commits import PRODUCER


class TestReceipt:
    """The table, the object and the verdict."""

    ACCOUNT = EpochAccount(
        producer=PRODUCER,
        epoch=3,
        last_seq=1_204_113,
        watermark=1_204_100,
        counts={**dict.fromkeys(STATES, 0), "archived": 1_204_090, "in_flight": 13, "deduplicated": 10},
        duplicates=(),
        duplicated=0,
        refused=2,
        dropped=40,
        holes=(),
        gaps=(GapCount("feedback", "disk", 2), GapCount("served", "no budget", 40)),
        breaches=(),
    )

    def test_the_table(self) -> None:
        """Every number of a sound system, and one sentence; a hundred columns are enough."""
        text = AuditReceipt(Period(), [self.ACCOUNT], {PRODUCER: 0}).as_text()
        ok = "OK: each of 1204113 accepted events is accounted for, none missing, none duplicated"
        assert text == "\n".join(
            [
                "slot producer epoch accepted archived flight dedup dead erased missing duplicate refused dropped",
                "0    0000aaaa     3  1204113  1204090     13    10    .      .       .         .       2      40",
                "all                  1204113  1204090     13    10    .      .       .         .       2      40",
                f"{PRODUCER} epoch 3: 2 feedback events refused: disk",
                f"{PRODUCER} epoch 3: 40 served events dropped: no budget",
                f"{ok}; 13 are still in flight.",
            ]
        )
        assert max(map(len, text.splitlines()[:3])) <= 100

    def test_the_object(self) -> None:
        """Promise 4 of the design, by name; offered is what was accepted, refused and dropped."""
        result = AuditReceipt(Period.parse("2026-11-21", None), [self.ACCOUNT], {PRODUCER: 0}).as_json()
        assert {name: value for name, value in result.items() if type(value) is int} == {
            "offered": 1_204_155,
            "accepted": 1_204_113,
            "refused": 2,
            "dropped": 40,
            "archived": 1_204_090,
            "in_flight": 13,
            "deduplicated": 10,
            "dead_lettered": 0,
            "erased": 0,
            "missing": 0,
            "retired": 0,
            "duplicated": 0,
        }
        assert (result["ok"], result["breaches"], result["range"]) == (
            True,
            [],
            {"from": "2026-11-21T00:00:00.000Z", "to": None},
        )
        (producer,) = result["producers"]
        assert (producer["producer"], producer["epoch"], producer["slot"], producer["last_seq"]) == (
            PRODUCER,
            3,
            0,
            1_204_113,
        )
        assert producer["gaps"][0] == {"class": "feedback", "reason": "disk", "count": 2}

    def test_a_breach(self) -> None:
        """The table names the first holes, the object all of them."""
        holes = tuple(Hole(seq, seq, NEVER_CAME) for seq in range(1, 24, 2))
        broken = replace(
            self.ACCOUNT,
            counts={**self.ACCOUNT.counts, "missing": 12},
            holes=holes,
            gaps=(),
            breaches=("the catalogue counts 1 archived, but 0 were found",),
        )
        receipt = AuditReceipt(Period(), [broken])
        name = f"{PRODUCER} epoch 3"
        assert not receipt.ok
        assert receipt.as_text().splitlines()[3:] == [
            *(f"{name}: missing {seq} to {seq}: {NEVER_CAME}" for seq in range(1, 20, 2)),
            f"{name}: and 2 more, all of them in --json",
            f"{name}: the catalogue counts 1 archived, but 0 were found",
            "BREACH: of 1204125 accepted events 12 are missing and 0 duplicated; 1 disagreement of the sources.",
        ]
        assert len(receipt.as_json()["producers"][0]["holes"]) == 12
