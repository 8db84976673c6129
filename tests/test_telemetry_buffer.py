from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from telemetry.buffer import EventBuffer

BUDGET_BYTES = 4000


class BufferMachine(RuleBasedStateMachine):
    """Random interleavings against a plain dict of what must be held."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = EventBuffer(BUDGET_BYTES, 0.8)
        self.held: dict[int, bytes] = {}
        self.appended = 0

    @rule(size=st.integers(1, 300), reserve=st.booleans())
    def append(self, size: int, reserve: bool) -> None:
        line = (b"%d:" % self.buffer.next_seq).ljust(size, b"x")
        if self.buffer.fits(len(line), reserve=reserve):
            self.held[self.buffer.next_seq] = line
            self.buffer.append(line)
            self.appended += 1
            if not reserve:
                assert self.buffer.held_bytes <= BUDGET_BYTES * 0.8

    @rule(seq=st.integers(0, 200))
    def release(self, seq: int) -> None:
        before = len(self.held)
        self.held = {number: line for number, line in self.held.items() if number > seq}
        assert self.buffer.release_through(seq) == before - len(self.held)

    @rule(offset=st.integers(0, 40), max_lines=st.integers(1, 30), max_bytes=st.integers(1, 2000))
    def read(self, offset: int, max_lines: int, max_bytes: int) -> None:
        start = min(self.buffer.released_through + 1 + offset, self.buffer.next_seq)
        lines = list(self.buffer.read_from(start, max_lines, max_bytes))
        assert lines == [self.held[seq] for seq in range(start, start + len(lines))]
        assert len(lines) <= max_lines
        assert len(lines) <= 1 or sum(map(len, lines)) <= max_bytes
        assert lines or start == self.buffer.next_seq

    @rule(shipped=st.integers(0, 40))
    def renumber(self, shipped: int) -> None:
        through = self.buffer.released_through + shipped
        kept = [line for number, line in sorted(self.held.items()) if number > through]
        self.buffer.renumber(through, lambda line, _seq: line)
        self.held = dict(enumerate(kept, start=1))

    @invariant()
    def the_sum_balances(self) -> None:
        buffer = self.buffer
        assert buffer.appended == self.appended
        assert buffer.appended == buffer.released + buffer.relinquished + buffer.held
        assert buffer.held == len(self.held)
        assert buffer.held_bytes <= BUDGET_BYTES
        assert buffer.held_bytes >= sum(map(len, self.held.values()))
        assert sorted(self.held) == list(range(buffer.released_through + 1, buffer.next_seq))
        assert bool(buffer.held) == bool(buffer.held_bytes)


TestBuffer = BufferMachine.TestCase
TestBuffer.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_releasing_gives_the_memory_back_without_copying_every_time() -> None:
    """Many small releases of a long buffer end with the right lines and nothing held."""
    buffer = EventBuffer(100_000_000, 1.0)
    for seq in range(1, 20_001):
        buffer.append(b"%d" % seq)
    for seq in range(0, 20_001, 7):
        buffer.release_through(seq)
        if seq < 20_000:
            assert list(buffer.read_from(seq + 1, 1, 100)) == [b"%d" % (seq + 1)]
    buffer.release_through(20_000)
    assert (buffer.held, buffer.held_bytes, buffer.released) == (0, 0, 20_000)
