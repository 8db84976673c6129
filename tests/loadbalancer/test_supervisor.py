"""Histories: what is observed at which second, and what the supervisor does about it. No process, no clock, no loop."""

from pathlib import Path

import pytest

from loadbalancer.part_kinds import BALANCER_TIER, CONSUMER_TIER, REDIS_TIER, REPLICA_TIER, Part
from loadbalancer.probes import HttpProbe
from loadbalancer.processes import Command
from loadbalancer.supervisor import (
    Action,
    Exited,
    Heard,
    Kill,
    Mode,
    Observation,
    Phase,
    Ready,
    RestartAsked,
    Silent,
    Start,
    State,
    Stop,
    StopAsked,
    Tick,
    Waiting,
    initial,
    next_wake_s,
    step,
)

REPLICAS = ("replica-0", "replica-1", "replica-2")


def part(name: str, tier: int, *, needs_all: tuple[str, ...] = (), needs_any: tuple[str, ...] = ()) -> Part:
    return Part(
        name=name,
        tier=tier,
        command=Command(("true",), {}, Path("unused")),
        probe=HttpProbe("127.0.0.1", 1, "/"),
        ready_within_s=60.0,
        stop_within_s=9.0,
        needs_all=needs_all,
        needs_any=needs_any,
        rolling=tier == REPLICA_TIER,
    )


PARTS = (
    part("redis", REDIS_TIER),
    part("consumer", CONSUMER_TIER, needs_all=("redis",)),
    *(part(name, REPLICA_TIER, needs_all=("redis",)) for name in REPLICAS),
    part("nginx-0", BALANCER_TIER, needs_any=REPLICAS),
)


class History:
    """Plays observations and remembers what was done."""

    def __init__(self) -> None:
        self.state: State = initial(PARTS, 0.0)

    def at(self, now_s: float, *observations: Observation) -> list[Action]:
        done: list[Action] = []
        for observation in observations:
            self.state, actions = step(PARTS, self.state, observation, now_s)
            done += actions
        return done

    def phase(self, name: str) -> Phase:
        return self.state.parts[name].phase


def starts(*names: str) -> list[Action]:
    return [Start(name) for name in names]


@pytest.fixture
def up() -> History:
    """A history in which everything came up by second 2."""
    history = History()
    history.at(0.0, Tick())
    history.at(0.5, Ready("redis"))
    history.at(1.5, *(Ready(name) for name in ("consumer", *REPLICAS)))
    history.at(2.0, Ready("nginx-0"))
    assert history.state.came_up
    return history


def test_parts_start_in_the_order_of_their_needs() -> None:
    """Redis first, then all that needs it at once, and nginx as soon as one replica is ready."""
    history = History()
    assert history.at(0.0, Tick()) == starts("redis")
    assert history.at(0.1, Tick()) == []
    assert history.at(0.5, Ready("redis")) == starts("consumer", *REPLICAS)
    assert history.at(1.0, Ready("consumer")) == []
    assert history.at(1.5, Ready("replica-1")) == starts("nginx-0")
    assert history.at(1.6, Ready("replica-0"), Ready("nginx-0")) == []
    assert not history.state.came_up
    assert history.at(1.7, Ready("replica-2")) == []
    assert history.state.came_up


@pytest.mark.parametrize("name", [each.name for each in PARTS])
def test_a_dead_part_starts_again_at_once_and_waits_for_no_other(up: History, name: str) -> None:
    """Whatever dies after a normal life is started in the same step, also while what it once needed is dead."""
    assert up.at(100.0, Exited(name)) == starts(name)


def test_redis_and_a_replica_may_die_together(up: History) -> None:
    """A replica comes back while Redis is still away."""
    assert up.at(100.0, Exited("redis"), Exited("replica-0")) == starts("redis", "replica-0")
    assert up.at(101.0, Ready("replica-0")) == []
    assert up.phase("replica-0") is Phase.READY


def test_pauses_grow_only_while_deaths_are_young_and_never_beyond_five_seconds(up: History) -> None:
    """The first early death costs 0.1 s, then more, 5 s at most; a life of a second makes it free again."""
    now_s, pauses_s = 100.0, []
    up.at(now_s, Exited("replica-0"))
    for _ in range(8):
        up.at(now_s, Exited("replica-0"))
        wake_s = next_wake_s(PARTS, up.state)
        assert wake_s is not None
        assert up.at(wake_s - 0.001, Tick()) == []
        assert up.at(wake_s, Tick()) == starts("replica-0")
        pauses_s.append(round(wake_s - now_s, 3))
        now_s = wake_s
    assert pauses_s == [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
    up.at(now_s, Ready("replica-0"))
    assert up.at(now_s + 1.0, Exited("replica-0")) == starts("replica-0")
    assert up.state.parts["replica-0"].young_deaths == 0


def test_a_part_that_does_not_get_ready_is_killed_once_and_started_again(up: History) -> None:
    """After the first start it has its time; then its group is killed, and its end leads to the next start."""
    up.at(100.0, Exited("replica-0"))
    assert next_wake_s(PARTS, up.state) == 160.0
    assert up.at(160.0, Tick()) == [Kill("replica-0")]
    assert up.at(161.0, Tick()) == []
    assert up.at(161.0, Exited("replica-0")) == []
    assert up.at(161.1, Tick()) == starts("replica-0")


def test_a_part_that_says_what_it_waits_for_is_not_killed(up: History) -> None:
    """It answers, so it lives; only when it falls silent for its time is it ended."""
    up.at(100.0, Exited("replica-0"))
    for now_s in (130.0, 180.0, 230.0):
        assert up.at(now_s, Waiting("replica-0", "no model")) == []
        assert up.state.parts["replica-0"].waits_for == "no model"
    assert next_wake_s(PARTS, up.state) == 290.0
    assert up.at(289.9, Tick()) == []
    assert up.at(290.0, Tick()) == [Kill("replica-0")]
    assert up.at(291.0, Exited("replica-0")) == []
    assert up.state.parts["replica-0"].waits_for == ""


def test_what_a_part_waits_for_is_over_when_it_is_ready(up: History) -> None:
    """A rolling restart touches no other replica before that."""
    up.at(100.0, RestartAsked())
    up.at(101.0, Exited("replica-0"))
    assert up.at(102.0, Waiting("replica-0", "no model")) == []
    assert up.at(103.0, Ready("replica-0")) == [Stop("replica-1")]
    assert up.state.parts["replica-0"].waits_for == ""


def test_a_first_start_goes_on_while_replicas_wait_for_a_model() -> None:
    """nginx starts, for they take feedback meanwhile; a part that says nothing still ends the start."""
    history = History()
    history.at(0.0, Tick(), Ready("redis"))
    assert history.at(1.0, Ready("consumer")) == []
    assert history.at(2.0, *(Waiting(name, "no model") for name in REPLICAS)) == starts("nginx-0")
    history.at(3.0, Ready("nginx-0"))
    assert history.at(61.0, *(Waiting(name, "no model") for name in REPLICAS)) == []
    assert not history.state.came_up
    assert history.at(110.0, Waiting("replica-0", "no model"), Waiting("replica-1", "no model")) == []
    history.at(121.0, Tick())
    assert (history.state.mode, history.state.failed) == (Mode.STOPPING, "replica-2")


def test_a_late_ready_of_a_part_that_ended_changes_nothing(up: History) -> None:
    """A probe's answer may arrive after the end of the process it asked."""
    up.at(100.0, Exited("replica-0"), Exited("replica-0"))
    assert up.phase("replica-0") is Phase.BACKOFF
    assert up.at(100.0, Ready("replica-0")) == []
    assert up.phase("replica-0") is Phase.BACKOFF


def test_stopping_goes_from_the_clients_inwards(up: History) -> None:
    """nginx, then all replicas at once, then the consumer, then Redis; nothing is started again."""
    assert up.at(10.0, StopAsked()) == [Stop("nginx-0")]
    assert up.at(11.0, Exited("nginx-0")) == [Stop(name) for name in REPLICAS]
    assert up.at(12.0, Exited("replica-1"), Exited("replica-0")) == []
    assert up.at(13.0, Exited("replica-2")) == [Stop("consumer")]
    assert up.at(14.0, Exited("consumer")) == [Stop("redis")]
    assert up.at(15.0, Exited("redis")) == []
    assert up.state.mode is Mode.ENDED
    assert up.state.failed is None


def test_a_part_that_does_not_stop_is_killed_in_its_time(up: History) -> None:
    """Each stop is bounded; the next tier waits for the end, not for the kill."""
    up.at(10.0, StopAsked())
    assert next_wake_s(PARTS, up.state) == 19.0
    assert up.at(19.0, Tick()) == [Kill("nginx-0")]
    assert up.at(19.5, Tick()) == []
    assert up.at(19.6, Exited("nginx-0")) == [Stop(name) for name in REPLICAS]


def test_asking_a_second_time_hastens(up: History) -> None:
    """After it, every part has one second."""
    up.at(10.0, StopAsked())
    assert up.at(10.5, StopAsked()) == []
    assert up.at(11.0, Tick()) == [Kill("nginx-0")]
    assert up.at(11.0, Exited("nginx-0")) == [Stop(name) for name in REPLICAS]
    assert up.at(12.0, Tick()) == [Kill(name) for name in REPLICAS]


def test_stopping_during_the_first_start_stops_what_was_started() -> None:
    """What still waits is never started."""
    history = History()
    history.at(0.0, Tick())
    assert history.at(0.1, StopAsked()) == [Stop("redis")]
    assert history.at(0.2, Ready("redis")) == []
    assert history.at(0.3, Exited("redis")) == []
    assert history.state.mode is Mode.ENDED


def test_a_part_that_is_over_already_needs_no_stop(up: History) -> None:
    """One that waits out its pause is simply not started again."""
    up.at(100.0, Exited("nginx-0"), Exited("nginx-0"))
    assert up.phase("nginx-0") is Phase.BACKOFF
    assert up.at(100.0, StopAsked()) == [Stop(name) for name in REPLICAS]


def test_a_rolling_restart_has_one_replica_down_at_a_time(up: History) -> None:
    """Drain, end, start, ready; only then the next."""
    assert up.at(10.0, RestartAsked()) == [Stop("replica-0")]
    assert up.phase("replica-0") is Phase.DRAINING
    assert up.at(15.0, Exited("replica-0")) == starts("replica-0")
    assert up.at(16.0, Ready("replica-0")) == [Stop("replica-1")]
    assert up.at(20.0, Exited("replica-1")) == starts("replica-1")
    assert up.at(21.0, Ready("replica-1")) == [Stop("replica-2")]
    assert up.at(25.0, Exited("replica-2")) == starts("replica-2")
    assert up.at(26.0, Ready("replica-2")) == []
    assert [up.state.parts[name].started for name in REPLICAS] == [2, 2, 2]


def test_a_rolling_restart_waits_while_another_replica_is_down(up: History) -> None:
    """A crash in the middle delays the next drain until all replicas are ready."""
    up.at(10.0, RestartAsked())
    up.at(11.0, Exited("replica-2"))
    up.at(15.0, Exited("replica-0"))
    assert up.at(16.0, Ready("replica-0")) == []
    assert up.at(17.0, Ready("replica-2")) == [Stop("replica-1")]


def test_a_replica_that_does_not_drain_in_time_is_killed(up: History) -> None:
    """And the restart goes on."""
    up.at(10.0, RestartAsked())
    assert up.at(19.0, Tick()) == [Kill("replica-0")]
    assert up.at(19.1, Exited("replica-0")) == starts("replica-0")


def test_stopping_ends_a_rolling_restart(up: History) -> None:
    """A replica that drains already is not asked again when its tier's turn comes."""
    up.at(10.0, RestartAsked())
    assert up.at(10.1, StopAsked()) == [Stop("nginx-0")]
    assert up.at(10.2, Exited("nginx-0")) == [Stop("replica-1"), Stop("replica-2")]
    assert up.state.to_restart == ()


def test_a_replica_that_ends_while_nginx_stops_is_not_started_again(up: History) -> None:
    """Stopping starts nothing."""
    up.at(10.0, StopAsked())
    assert up.at(10.1, Exited("replica-0")) == []
    assert up.phase("replica-0") is Phase.STOPPED


@pytest.mark.parametrize("name", ["redis", "replica-1"])
def test_the_first_start_fails_when_a_part_keeps_dying(name: str) -> None:
    """Three deaths before it was ever ready are a verdict: the rest is stopped and the part is named."""
    history = History()
    history.at(0.0, Tick())
    if name != "redis":
        history.at(0.1, Ready("redis"))
    history.at(1.0, Exited(name))
    history.at(1.1, Tick())
    history.at(2.0, Exited(name))
    history.at(2.2, Tick())
    history.at(3.0, Exited(name))
    assert history.state.mode in {Mode.STOPPING, Mode.ENDED}
    assert history.state.failed == name


def test_the_first_start_fails_when_a_part_is_not_ready_in_time() -> None:
    """Nobody is kept waiting for more than its time."""
    history = History()
    history.at(0.0, Tick())
    assert next_wake_s(PARTS, history.state) == 60.0
    assert history.at(60.0, Tick()) == [Stop("redis")]
    assert history.state.failed == "redis"


def silent(name: str = "nginx-0", waited_s: float = 1.0) -> Silent:
    return Silent(name, waited_s)


def test_a_part_that_is_silent_twice_in_a_row_is_killed_once_and_started_again(up: History) -> None:
    """More silences on the way to its end change nothing, and its next life begins with none."""
    assert up.at(100.0, silent()) == []
    assert up.at(100.2, silent()) == [Kill("nginx-0")]
    assert up.phase("nginx-0") is Phase.READY
    assert next_wake_s(PARTS, up.state) is None
    assert up.at(100.3, silent(), silent()) == []
    assert up.at(100.4, Exited("nginx-0")) == starts("nginx-0")
    assert up.at(100.5, Ready("nginx-0"), silent()) == []
    assert up.at(100.6, silent()) == [Kill("nginx-0")]


def test_an_answer_between_two_silences_forgives_the_first(up: History) -> None:
    """One silence is a hiccup, however often it comes."""
    for second in range(100, 110):
        assert up.at(float(second), silent(), Heard("nginx-0")) == []


def test_silence_of_one_part_is_not_held_against_another(up: History) -> None:
    """Each is counted for itself."""
    assert up.at(100.0, silent("nginx-0"), silent("redis"), Heard("redis")) == []
    assert up.at(100.2, silent("redis"), silent("nginx-0")) == [Kill("nginx-0")]


def test_pauses_of_the_whole_machine_kill_nobody(up: History) -> None:
    """After each, all questions are over their time at once; that they took too long tells on the supervisor itself."""
    for second in range(100, 200, 10):
        assert up.at(float(second), *(silent(waited_s=waited_s) for waited_s in (9.0, 8.75, 8.5, 1.5))) == []
        # The first question after it is asked and answered as always, or is a silence like any other.
        assert up.at(second + 1.0, silent()) == []
        assert up.at(second + 1.2, Heard("nginx-0")) == []


def test_a_late_silence_neither_counts_nor_forgives(up: History) -> None:
    """It says nothing about the part."""
    assert up.at(100.0, silent(), silent(waited_s=5.0)) == []
    assert up.at(100.2, silent()) == [Kill("nginx-0")]


@pytest.mark.parametrize("before", [(Exited("nginx-0"),), (StopAsked(),)])
def test_only_a_ready_part_is_judged_by_its_silence(up: History, before: tuple[Observation, ...]) -> None:
    """One that starts or stops has its own time limit; an answer to an old question may still be on its way."""
    up.at(100.0, *before)
    assert up.at(100.1, silent(), silent(), silent()) == []


def test_a_state_tells_where_every_part_is(up: History) -> None:
    """Its repr is what a failing test prints."""
    up.at(100.0, RestartAsked())
    assert repr(up.state) == (
        "<State running: redis ready, consumer ready, replica-0 draining, replica-1 ready, replica-2 ready, "
        "nginx-0 ready>"
    )
