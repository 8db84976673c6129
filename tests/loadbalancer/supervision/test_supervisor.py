"""The supervisor's actions after histories of observations, without processes, clock or event loop."""

from pathlib import Path

import pytest

from loadbalancer.part_kinds import BALANCER_TIER, CONSUMER_TIER, REDIS_TIER, REPLICA_TIER, Part
from loadbalancer.supervision.probes import HttpProbe
from loadbalancer.supervision.processes import Command
from loadbalancer.supervision.supervisor import (
    Action,
    Exited,
    FleetState,
    Kill,
    LivenessOk,
    LivenessTimeout,
    Mode,
    NotReady,
    Observation,
    Phase,
    Ready,
    RestartRequested,
    Start,
    Stop,
    StopRequested,
    Tick,
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


class SupervisorHistory:
    """Feeds observations to the supervisor and returns its actions."""

    def __init__(self) -> None:
        self.state: FleetState = initial(PARTS, 0.0)

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
def up() -> SupervisorHistory:
    """A history in which everything came up by second 2."""
    history = SupervisorHistory()
    history.at(0.0, Tick())
    history.at(0.5, Ready("redis"))
    history.at(1.5, *(Ready(name) for name in ("consumer", *REPLICAS)))
    history.at(2.0, Ready("nginx-0"))
    assert history.state.came_up
    return history


def test_parts_start_in_the_order_of_their_needs() -> None:
    """Redis first, then all that needs it at once, and nginx as soon as one replica is ready."""
    history = SupervisorHistory()
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
def test_a_crashed_part_restarts_at_once_and_waits_for_no_other(up: SupervisorHistory, name: str) -> None:
    """After the minimum uptime it restarts in the same step, even while a part that it needs is down."""
    assert up.at(100.0, Exited(name)) == starts(name)


def test_a_replica_restarts_while_redis_is_down(up: SupervisorHistory) -> None:
    """Both crashed together; the replica is ready first."""
    assert up.at(100.0, Exited("redis"), Exited("replica-0")) == starts("redis", "replica-0")
    assert up.at(101.0, Ready("replica-0")) == []
    assert up.phase("replica-0") is Phase.READY


def test_backoff_grows_with_early_exits_up_to_five_seconds(up: SupervisorHistory) -> None:
    """The backoff is 0.1 s after the first early exit and grows to 5 s; the minimum uptime resets it."""
    now_s, backoffs_s = 100.0, []
    up.at(now_s, Exited("replica-0"))
    for _ in range(8):
        up.at(now_s, Exited("replica-0"))
        wake_s = next_wake_s(PARTS, up.state)
        assert wake_s is not None
        assert up.at(wake_s - 0.001, Tick()) == []
        assert up.at(wake_s, Tick()) == starts("replica-0")
        backoffs_s.append(round(wake_s - now_s, 3))
        now_s = wake_s
    assert backoffs_s == [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
    up.at(now_s, Ready("replica-0"))
    assert up.at(now_s + 1.0, Exited("replica-0")) == starts("replica-0")
    assert up.state.parts["replica-0"].early_exits == 0


def test_a_part_that_does_not_get_ready_is_killed_once_and_started_again(up: SupervisorHistory) -> None:
    """At its deadline its group is killed, and its exit leads to the next start."""
    up.at(100.0, Exited("replica-0"))
    assert next_wake_s(PARTS, up.state) == 160.0
    assert up.at(160.0, Tick()) == [Kill("replica-0")]
    assert up.at(161.0, Tick()) == []
    assert up.at(161.0, Exited("replica-0")) == []
    assert up.at(161.1, Tick()) == starts("replica-0")


def test_a_part_that_reports_why_it_is_not_ready_is_not_killed(up: SupervisorHistory) -> None:
    """Each report moves its deadline; without a further report it is killed."""
    up.at(100.0, Exited("replica-0"))
    for now_s in (130.0, 180.0, 230.0):
        assert up.at(now_s, NotReady("replica-0", "no model")) == []
        assert up.state.parts["replica-0"].not_ready_reason == "no model"
    assert next_wake_s(PARTS, up.state) == 290.0
    assert up.at(289.9, Tick()) == []
    assert up.at(290.0, Tick()) == [Kill("replica-0")]
    assert up.at(291.0, Exited("replica-0")) == []
    assert up.state.parts["replica-0"].not_ready_reason == ""


def test_the_reason_is_cleared_when_a_part_is_ready(up: SupervisorHistory) -> None:
    """A rolling restart stops the next replica only then."""
    up.at(100.0, RestartRequested())
    up.at(101.0, Exited("replica-0"))
    assert up.at(102.0, NotReady("replica-0", "no model")) == []
    assert up.at(103.0, Ready("replica-0")) == [Stop("replica-1")]
    assert up.state.parts["replica-0"].not_ready_reason == ""


def test_a_first_start_continues_while_replicas_report_that_they_have_no_model() -> None:
    """nginx starts, because replicas without a model accept feedback; a part without a report still fails the start."""
    history = SupervisorHistory()
    history.at(0.0, Tick(), Ready("redis"))
    assert history.at(1.0, Ready("consumer")) == []
    assert history.at(2.0, *(NotReady(name, "no model") for name in REPLICAS)) == starts("nginx-0")
    history.at(3.0, Ready("nginx-0"))
    assert history.at(61.0, *(NotReady(name, "no model") for name in REPLICAS)) == []
    assert not history.state.came_up
    assert history.at(110.0, NotReady("replica-0", "no model"), NotReady("replica-1", "no model")) == []
    history.at(121.0, Tick())
    assert (history.state.mode, history.state.failed) == (Mode.STOPPING, "replica-2")


def test_a_late_ready_of_a_part_that_exited_changes_nothing(up: SupervisorHistory) -> None:
    """A probe's answer may arrive after the exit of its process."""
    up.at(100.0, Exited("replica-0"), Exited("replica-0"))
    assert up.phase("replica-0") is Phase.BACKOFF
    assert up.at(100.0, Ready("replica-0")) == []
    assert up.phase("replica-0") is Phase.BACKOFF


def test_tiers_stop_from_nginx_to_redis(up: SupervisorHistory) -> None:
    """nginx, then all replicas at once, then the consumer, then Redis; nothing restarts."""
    assert up.at(10.0, StopRequested()) == [Stop("nginx-0")]
    assert up.at(11.0, Exited("nginx-0")) == [Stop(name) for name in REPLICAS]
    assert up.at(12.0, Exited("replica-1"), Exited("replica-0")) == []
    assert up.at(13.0, Exited("replica-2")) == [Stop("consumer")]
    assert up.at(14.0, Exited("consumer")) == [Stop("redis")]
    assert up.at(15.0, Exited("redis")) == []
    assert up.state.mode is Mode.ENDED
    assert up.state.failed is None


def test_a_part_that_does_not_stop_is_killed_at_its_deadline(up: SupervisorHistory) -> None:
    """The next tier waits for the exit, not for the kill."""
    up.at(10.0, StopRequested())
    assert next_wake_s(PARTS, up.state) == 19.0
    assert up.at(19.0, Tick()) == [Kill("nginx-0")]
    assert up.at(19.5, Tick()) == []
    assert up.at(19.6, Exited("nginx-0")) == [Stop(name) for name in REPLICAS]


def test_a_second_stop_request_stops_fast(up: SupervisorHistory) -> None:
    """Every part is killed after one second."""
    up.at(10.0, StopRequested())
    assert up.at(10.5, StopRequested()) == []
    assert up.at(11.0, Tick()) == [Kill("nginx-0")]
    assert up.at(11.0, Exited("nginx-0")) == [Stop(name) for name in REPLICAS]
    assert up.at(12.0, Tick()) == [Kill(name) for name in REPLICAS]


def test_stopping_during_the_first_start_stops_what_was_started() -> None:
    """Parts that were not started stay so."""
    history = SupervisorHistory()
    history.at(0.0, Tick())
    assert history.at(0.1, StopRequested()) == [Stop("redis")]
    assert history.at(0.2, Ready("redis")) == []
    assert history.at(0.3, Exited("redis")) == []
    assert history.state.mode is Mode.ENDED


def test_a_part_in_backoff_needs_no_stop(up: SupervisorHistory) -> None:
    """Stopping skips it, and it is not started again."""
    up.at(100.0, Exited("nginx-0"), Exited("nginx-0"))
    assert up.phase("nginx-0") is Phase.BACKOFF
    assert up.at(100.0, StopRequested()) == [Stop(name) for name in REPLICAS]


def test_a_rolling_restart_has_one_replica_down_at_a_time(up: SupervisorHistory) -> None:
    """Drain, exit, start, ready; then the next."""
    assert up.at(10.0, RestartRequested()) == [Stop("replica-0")]
    assert up.phase("replica-0") is Phase.DRAINING
    assert up.at(15.0, Exited("replica-0")) == starts("replica-0")
    assert up.at(16.0, Ready("replica-0")) == [Stop("replica-1")]
    assert up.at(20.0, Exited("replica-1")) == starts("replica-1")
    assert up.at(21.0, Ready("replica-1")) == [Stop("replica-2")]
    assert up.at(25.0, Exited("replica-2")) == starts("replica-2")
    assert up.at(26.0, Ready("replica-2")) == []
    assert [up.state.parts[name].starts for name in REPLICAS] == [2, 2, 2]


def test_a_rolling_restart_waits_while_another_replica_is_down(up: SupervisorHistory) -> None:
    """A crash delays the next drain until all replicas are ready."""
    up.at(10.0, RestartRequested())
    up.at(11.0, Exited("replica-2"))
    up.at(15.0, Exited("replica-0"))
    assert up.at(16.0, Ready("replica-0")) == []
    assert up.at(17.0, Ready("replica-2")) == [Stop("replica-1")]


def test_a_replica_that_does_not_drain_in_time_is_killed(up: SupervisorHistory) -> None:
    """Its exit continues the rolling restart."""
    up.at(10.0, RestartRequested())
    assert up.at(19.0, Tick()) == [Kill("replica-0")]
    assert up.at(19.1, Exited("replica-0")) == starts("replica-0")


def test_stopping_ends_a_rolling_restart(up: SupervisorHistory) -> None:
    """A replica that already drains gets no second stop request."""
    up.at(10.0, RestartRequested())
    assert up.at(10.1, StopRequested()) == [Stop("nginx-0")]
    assert up.at(10.2, Exited("nginx-0")) == [Stop("replica-1"), Stop("replica-2")]
    assert up.state.to_restart == ()


def test_a_replica_that_exits_while_nginx_stops_is_not_restarted(up: SupervisorHistory) -> None:
    """Stopping starts nothing."""
    up.at(10.0, StopRequested())
    assert up.at(10.1, Exited("replica-0")) == []
    assert up.phase("replica-0") is Phase.STOPPED


@pytest.mark.parametrize("name", ["redis", "replica-1"])
def test_the_first_start_fails_when_a_part_keeps_exiting(name: str) -> None:
    """After three exits before it was ready, the other parts stop and the state names it."""
    history = SupervisorHistory()
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
    """At its deadline every part stops, and the state names it."""
    history = SupervisorHistory()
    history.at(0.0, Tick())
    assert next_wake_s(PARTS, history.state) == 60.0
    assert history.at(60.0, Tick()) == [Stop("redis")]
    assert history.state.failed == "redis"


def timeout(name: str = "nginx-0", waited_s: float = 1.0) -> LivenessTimeout:
    return LivenessTimeout(name, waited_s)


def test_two_liveness_timeouts_in_a_row_kill_a_part_once(up: SupervisorHistory) -> None:
    """Further timeouts before its exit change nothing; the count of the next process begins at 0."""
    assert up.at(100.0, timeout()) == []
    assert up.at(100.2, timeout()) == [Kill("nginx-0")]
    assert up.phase("nginx-0") is Phase.READY
    assert next_wake_s(PARTS, up.state) is None
    assert up.at(100.3, timeout(), timeout()) == []
    assert up.at(100.4, Exited("nginx-0")) == starts("nginx-0")
    assert up.at(100.5, Ready("nginx-0"), timeout()) == []
    assert up.at(100.6, timeout()) == [Kill("nginx-0")]


def test_an_answer_between_two_timeouts_resets_the_count(up: SupervisorHistory) -> None:
    """A single timeout is a hiccup, however often it occurs."""
    for second in range(100, 110):
        assert up.at(float(second), timeout(), LivenessOk("nginx-0")) == []


def test_timeouts_are_counted_for_each_part(up: SupervisorHistory) -> None:
    """Another part's timeouts and answers do not count."""
    assert up.at(100.0, timeout("nginx-0"), timeout("redis"), LivenessOk("redis")) == []
    assert up.at(100.2, timeout("redis"), timeout("nginx-0")) == [Kill("nginx-0")]


def test_pauses_of_the_whole_machine_kill_no_part(up: SupervisorHistory) -> None:
    """After a pause all pending probes time out late, so the supervisor itself was paused."""
    for second in range(100, 200, 10):
        assert up.at(float(second), *(timeout(waited_s=waited_s) for waited_s in (9.0, 8.75, 8.5, 1.5))) == []
        # The first probe after it succeeds, or times out like any other.
        assert up.at(second + 1.0, timeout()) == []
        assert up.at(second + 1.2, LivenessOk("nginx-0")) == []


def test_a_late_timeout_neither_counts_nor_resets(up: SupervisorHistory) -> None:
    """The supervisor was paused, so the timeout shows nothing about the part."""
    assert up.at(100.0, timeout(), timeout(waited_s=5.0)) == []
    assert up.at(100.2, timeout()) == [Kill("nginx-0")]


@pytest.mark.parametrize("before", [(Exited("nginx-0"),), (StopRequested(),)])
def test_liveness_counts_only_while_a_part_is_ready(up: SupervisorHistory, before: tuple[Observation, ...]) -> None:
    """Starting and stopping have deadlines of their own; the answer of an old probe may still arrive."""
    up.at(100.0, *before)
    assert up.at(100.1, timeout(), timeout(), timeout()) == []


def test_the_repr_of_a_state_shows_every_phase(up: SupervisorHistory) -> None:
    """A failing test prints it."""
    up.at(100.0, RestartRequested())
    assert repr(up.state) == (
        "<FleetState running: redis ready, consumer ready, replica-0 draining, replica-1 ready, replica-2 ready, "
        "nginx-0 ready>"
    )
