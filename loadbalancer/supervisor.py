"""Decides what to start, stop and kill: `step(state, observation, now)` is pure and knows no process.

Invariants:

- A part that ended is started again, at once unless it keeps dying young; then with growing pauses of 5 s at most.
- Nothing is started before what it needs was ready once. After that a part never waits for another: replicas serve
  while Redis is away.
- Stopping goes from the last tier to the first, and no tier is asked before the one above it is gone.
- A rolling restart has at most one replica down, and touches the next one only when all of them are ready.
- A part that neither gets ready nor stops in its time is killed, once; only its end leads on. One that answers and says
  why it is not ready is alive: killing it would not give it what it waits for.
- A ready part that is watched and silent twice in a row is killed too. A silence that the supervisor noticed late does
  not count: it was paused then, and so perhaps was the whole machine.

::

    WAITING --needs met--> STARTING --ready--> READY --rolling restart--> DRAINING
                             |  ^                | ended                     |
                             |  +--pause over--- BACKOFF <-------ended-------+
                             +------ended-------> ^
    any of these --stop--> STOPPING --ended--> STOPPED

    killed, and so on the way to "ended": STARTING, DRAINING and STOPPING when their time is over; READY when watched
    and silent twice in a row
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType

from loadbalancer.part_kinds import Part


class Phase(Enum):
    """Where one part is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Mode(Enum):
    """What the whole is about."""

    RUNNING = "running"
    STOPPING = "stopping"
    HASTENED = "hastened"
    ENDED = "ended"


@dataclass(frozen=True)
class Ready:
    """A part answered its probe."""

    name: str


@dataclass(frozen=True)
class Waiting:
    """A part that starts answered its probe, and said why it is not ready."""

    name: str
    why: str


@dataclass(frozen=True)
class Exited:
    """A part's process is over, or could not be started."""

    name: str


@dataclass(frozen=True)
class Heard:
    """A watched part answered."""

    name: str


@dataclass(frozen=True)
class Silent:
    """A watched part did not answer, and how long it was given, in s, by the clock and not by intention."""

    name: str
    waited_s: float


@dataclass(frozen=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True)
class StopAsked:
    """Somebody asked to stop; asked a second time, to hurry."""


@dataclass(frozen=True)
class RestartAsked:
    """Somebody asked for a rolling restart."""


Observation = Ready | Waiting | Exited | Heard | Silent | Tick | StopAsked | RestartAsked


@dataclass(frozen=True)
class Start:
    """Start the part's process."""

    name: str


@dataclass(frozen=True)
class Stop:
    """Ask the part to stop in good order."""

    name: str


@dataclass(frozen=True)
class Kill:
    """Kill the part's whole process group."""

    name: str


Action = Start | Stop | Kill


@dataclass(frozen=True)
class PartState:
    """One part's place in the diagram above.

    Args:
        since_s: When it came there.
        started: How often it was started.
        young_deaths: How often, one after the other, it ended before it had been ready for a while.
        was_ready: Whether it was ready at least once.
        killed: Whether it was killed in this phase.
        silences: How often in a row it was silent in this phase.
        waits_for: What it said last of why it is not ready; empty unless it is starting.
        heard_s: When it said so.
    """

    phase: Phase = Phase.WAITING
    since_s: float = 0.0
    started: int = 0
    young_deaths: int = 0
    was_ready: bool = False
    killed: bool = False
    silences: int = 0
    waits_for: str = ""
    heard_s: float = 0.0


@dataclass(frozen=True)
class State:
    """The whole.

    Args:
        to_restart: Replicas whose turn in the rolling restart is still to come.
        failed: The part that made the first start fail.
    """

    parts: Mapping[str, PartState] = field(default_factory=lambda: MappingProxyType({}))
    mode: Mode = Mode.RUNNING
    to_restart: tuple[str, ...] = ()
    failed: str | None = None

    @property
    def came_up(self) -> bool:
        """Whether every part was ready at least once."""
        return all(state.was_ready for state in self.parts.values())

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {state.phase.value}" for name, state in self.parts.items())
        return f"<State {self.mode.value}: {parts}>"


# Seconds of pause after the n-th young death in a row.
_PAUSES_S = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# Being ready for so long is a life; a death after it starts the count anew.
_GROWN_UP_S = 1.0
# In the first start, somebody waits for a verdict.
_FIRST_START_DEATHS = 3
# So many silences in a row are a death: one may be a hiccup.
_SILENCES = 2
# A part is given 1 s to answer. If that took so long, the supervisor was late, and the silence may be its own.
_LATE_S = 1.5
# After a second request to stop.
_HASTENED_STOP_S = 1.0


def initial(parts: Sequence[Part], now_s: float) -> State:
    """Return the state before anything was started."""
    return State(MappingProxyType({part.name: PartState(since_s=now_s) for part in parts}))


def step(
    parts: Sequence[Part], state: State, observation: Observation, now_s: float
) -> tuple[State, tuple[Action, ...]]:
    """Take in one observation.

    Args:
        parts: The same parts as in `initial`.
        state: The state so far.
        observation: What happened.
        now_s: The monotonic time, in s.

    Returns:
        The new state, and what is to be done, in order.
    """
    match observation:
        case Silent(waited_s=waited_s) if waited_s >= _LATE_S:
            pass
        case Waiting(name, why):
            if state.parts[name].phase is Phase.STARTING:
                state = _with(state, {name: replace(state.parts[name], waits_for=why, heard_s=now_s)})
        case Ready(name) | Exited(name) | Heard(name) | Silent(name):
            transition = _TRANSITIONS.get((state.parts[name].phase, type(observation)))
            if transition is not None:
                state = _with(state, {name: transition(state.parts[name], now_s)})
        case StopAsked():
            state = replace(state, mode=_AFTER_STOP_ASKED[state.mode], to_restart=())
        case RestartAsked():
            if state.mode is Mode.RUNNING:
                state = replace(state, to_restart=tuple(part.name for part in parts if part.rolling))
        case Tick():
            pass
    return _settle(parts, state, now_s)


def next_wake_s(parts: Sequence[Part], state: State) -> float | None:
    """Return the time at which a Tick may change something, or None while only events can."""
    times = [due for part in parts if (due := _due_s(part, state)) is not None]
    return min(times, default=None)


def _started(part: PartState, now_s: float) -> PartState:
    return PartState(Phase.STARTING, now_s, part.started + 1, part.young_deaths, part.was_ready)


def _became_ready(part: PartState, now_s: float) -> PartState:
    return replace(part, phase=Phase.READY, since_s=now_s, was_ready=True, killed=False, waits_for="")


def _heard(part: PartState, _now_s: float) -> PartState:
    return replace(part, silences=0)


def _said_nothing(part: PartState, _now_s: float) -> PartState:
    return replace(part, silences=part.silences + 1)


def _died(part: PartState, now_s: float) -> PartState:
    young = part.phase is Phase.STARTING or now_s - part.since_s < _GROWN_UP_S
    deaths = part.young_deaths + 1 if young else 0
    return replace(part, phase=Phase.BACKOFF, since_s=now_s, young_deaths=deaths, killed=False, waits_for="")


def _drained(part: PartState, now_s: float) -> PartState:
    return replace(part, phase=Phase.BACKOFF, since_s=now_s, young_deaths=0, killed=False)


def _stopped(part: PartState, now_s: float) -> PartState:
    return replace(part, phase=Phase.STOPPED, since_s=now_s, killed=False, waits_for="")


# What is not here changes nothing: a late answer of a part that is asked to stop, for one.
_TRANSITIONS: dict[tuple[Phase, type[Observation]], Callable[[PartState, float], PartState]] = {
    (Phase.STARTING, Ready): _became_ready,
    (Phase.STARTING, Exited): _died,
    (Phase.READY, Heard): _heard,
    (Phase.READY, Silent): _said_nothing,
    (Phase.READY, Exited): _died,
    (Phase.DRAINING, Exited): _drained,
    (Phase.STOPPING, Exited): _stopped,
}
_AFTER_STOP_ASKED = {
    Mode.RUNNING: Mode.STOPPING,
    Mode.STOPPING: Mode.HASTENED,
    Mode.HASTENED: Mode.HASTENED,
    Mode.ENDED: Mode.ENDED,
}
_ALIVE = frozenset({Phase.STARTING, Phase.READY, Phase.DRAINING, Phase.STOPPING})


def _settle(parts: Sequence[Part], state: State, now_s: float) -> tuple[State, tuple[Action, ...]]:
    state = _judge_first_start(parts, state, now_s)
    actions: list[Action] = []
    if state.mode is Mode.RUNNING:
        state = _roll(parts, state, now_s, actions)
        for part in parts:
            if _may_start(part, state, now_s):
                actions.append(Start(part.name))
                state = _with(state, {part.name: _started(state.parts[part.name], now_s)})
    else:
        state = _wind_down(parts, state, now_s, actions)
    for part in parts:
        due_s = _due_s(part, state)
        own = state.parts[part.name]
        if own.phase in _ALIVE and due_s is not None and now_s >= due_s:
            actions.append(Kill(part.name))
            state = _with(state, {part.name: replace(own, killed=True)})
    return state, tuple(actions)


def _judge_first_start(parts: Sequence[Part], state: State, now_s: float) -> State:
    if state.mode is not Mode.RUNNING or state.came_up:
        return state
    for part in parts:
        own = state.parts[part.name]
        due_s = _due_s(part, state)
        late = own.phase is Phase.STARTING and due_s is not None and now_s >= due_s
        if not own.was_ready and (late or own.young_deaths >= _FIRST_START_DEATHS):
            return replace(state, mode=Mode.STOPPING, failed=part.name, to_restart=())
    return state


def _may_start(part: Part, state: State, now_s: float) -> bool:
    own = state.parts[part.name]
    if own.phase is Phase.BACKOFF:
        return now_s >= own.since_s + _pause_s(own)
    if own.phase is not Phase.WAITING:
        return False
    # One that waits for something else answers its clients meanwhile, as well as it can.
    ready = [state.parts[name].was_ready or bool(state.parts[name].waits_for) for name in part.needs_any]
    return all(state.parts[name].was_ready for name in part.needs_all) and (any(ready) or not ready)


def _roll(parts: Sequence[Part], state: State, now_s: float, actions: list[Action]) -> State:
    rolling = [state.parts[part.name] for part in parts if part.rolling]
    if not state.to_restart or any(own.phase is not Phase.READY for own in rolling):
        return state
    name, *rest = state.to_restart
    actions.append(Stop(name))
    draining = replace(state.parts[name], phase=Phase.DRAINING, since_s=now_s, killed=False)
    return replace(_with(state, {name: draining}), to_restart=tuple(rest))


def _wind_down(parts: Sequence[Part], state: State, now_s: float, actions: list[Action]) -> State:
    idle = {name: own for name, own in state.parts.items() if own.phase in {Phase.WAITING, Phase.BACKOFF}}
    state = _with(state, {name: _stopped(own, now_s) for name, own in idle.items()})
    alive = [part for part in parts if state.parts[part.name].phase in _ALIVE]
    if not alive:
        return replace(state, mode=Mode.ENDED)
    tier = max(part.tier for part in alive)
    for part in alive:
        own = state.parts[part.name]
        if part.tier == tier and own.phase is not Phase.STOPPING:
            # One that drains was asked already; asked again, it might hurry.
            if own.phase is not Phase.DRAINING:
                actions.append(Stop(part.name))
            state = _with(state, {part.name: replace(own, phase=Phase.STOPPING, since_s=now_s, killed=False)})
    return state


def _due_s(part: Part, state: State) -> float | None:
    """When the part's phase is over without anything more happening, or None."""
    own = state.parts[part.name]
    if own.killed:
        return None
    match own.phase:
        case Phase.STARTING:
            return max(own.since_s, own.heard_s) + part.ready_within_s
        case Phase.READY if own.silences >= _SILENCES:
            return own.since_s
        case Phase.DRAINING:
            return own.since_s + part.stop_within_s
        case Phase.STOPPING:
            hastened = min(_HASTENED_STOP_S, part.stop_within_s)
            return own.since_s + (hastened if state.mode is Mode.HASTENED else part.stop_within_s)
        case Phase.BACKOFF:
            return own.since_s + _pause_s(own)
        case _:
            return None


def _pause_s(own: PartState) -> float:
    return _PAUSES_S[min(own.young_deaths, len(_PAUSES_S) - 1)]


def _with(state: State, changes: Mapping[str, PartState]) -> State:
    return replace(state, parts=MappingProxyType({**state.parts, **changes}))
