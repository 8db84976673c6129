"""Decides which parts to start, stop and kill: `step(parts, state, observation, now)` is pure.

Invariants:

- A part that exits is started again: at once, or after a growing backoff of at most 5 s if it keeps exiting early.
- A part is first started when the parts it needs have been ready once. Later starts wait for no other part: replicas
  serve while Redis is away.
- Tiers stop from the last to the first, each after the one above it has exited.
- A rolling restart takes one replica down at a time, and goes on only when all replicas are ready.
- A part that exceeds its time to get ready or to stop is killed, once. A starting part that reports why it is not
  ready is alive, and its time begins again: a restart would not end its wait.
- A ready, watched part is killed after two liveness timeouts in a row. A timeout that the supervisor observes late does
  not count: the supervisor, and perhaps the whole machine, was paused.

::

    WAITING --needs met--> STARTING --ready--> READY --rolling restart--> DRAINING
                             |  ^                | exited                    |
                             |  +-backoff over-- BACKOFF <------exited-------+
                             +------exited-----> ^
    any of these --stop--> STOPPING --exited--> STOPPED

    Killed, and so on the way to "exited": STARTING, DRAINING and STOPPING at their deadline; READY after two liveness
    timeouts in a row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType

from loadbalancer.part_kinds import Part


class Phase(Enum):
    """The lifecycle of one part."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Mode(Enum):
    """The lifecycle of the whole installation."""

    RUNNING = "running"
    STOPPING = "stopping"
    STOPPING_FAST = "stopping fast"
    ENDED = "ended"


@dataclass(frozen=True)
class Ready:
    """A part's readiness probe succeeded."""

    name: str


@dataclass(frozen=True)
class NotReady:
    """A starting part answered its readiness probe with a reason why it is not ready."""

    name: str
    reason: str


@dataclass(frozen=True)
class Exited:
    """A part's process exited, or could not be started."""

    name: str


@dataclass(frozen=True)
class LivenessOk:
    """A watched part answered its liveness probe."""

    name: str


@dataclass(frozen=True)
class LivenessTimeout:
    """A watched part did not answer its liveness probe within `waited_s`, as measured, not as configured."""

    name: str
    waited_s: float


@dataclass(frozen=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True)
class StopRequested:
    """A stop signal arrived; a second one asks for a fast stop."""


@dataclass(frozen=True)
class RestartRequested:
    """A rolling restart was requested."""


Observation = Ready | NotReady | Exited | LivenessOk | LivenessTimeout | Tick | StopRequested | RestartRequested


@dataclass(frozen=True)
class Start:
    """Start the part's process."""

    name: str


@dataclass(frozen=True)
class Stop:
    """Ask the part to stop gracefully."""

    name: str


@dataclass(frozen=True)
class Kill:
    """Kill the part's whole process group."""

    name: str


Action = Start | Stop | Kill


@dataclass(frozen=True)
class PartState:
    """The state of one part.

    Args:
        since_s: When it entered its phase.
        starts: How often it was started.
        early_exits: Exits in a row before it had been ready for MIN_UPTIME_S.
        was_ready: Whether it has been ready at least once.
        killed: Whether it was killed in this phase.
        liveness_timeouts: Liveness timeouts in a row in this phase.
        not_ready_reason: The last reason it reported while starting; else empty.
        reported_s: When it reported that reason.
    """

    phase: Phase = Phase.WAITING
    since_s: float = 0.0
    starts: int = 0
    early_exits: int = 0
    was_ready: bool = False
    killed: bool = False
    liveness_timeouts: int = 0
    not_ready_reason: str = ""
    reported_s: float = 0.0


@dataclass(frozen=True)
class FleetState:
    """The state of the whole installation.

    Args:
        to_restart: Replicas that the rolling restart has still to restart.
        failed: The part that made the first start fail.
    """

    parts: Mapping[str, PartState] = field(default_factory=lambda: MappingProxyType({}))
    mode: Mode = Mode.RUNNING
    to_restart: tuple[str, ...] = ()
    failed: str | None = None

    @property
    def came_up(self) -> bool:
        """Whether every part has been ready at least once."""
        return all(state.was_ready for state in self.parts.values())

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {state.phase.value}" for name, state in self.parts.items())
        return f"<FleetState {self.mode.value}: {parts}>"


# Backoff after the n-th early exit in a row.
_BACKOFF_S = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# Minimum uptime that resets the crash counter.
MIN_UPTIME_S = 1.0
# Early exits of one part that fail the first start.
_MAX_FIRST_START_EXITS = 3
# Liveness timeouts in a row after which a part is killed; one may be a hiccup.
_MAX_LIVENESS_TIMEOUTS = 2
# A probe times out after 1 s. If it took this long, the supervisor itself was paused.
_LATE_TIMEOUT_S = 1.5
# Time to stop after a second stop request.
_FAST_STOP_S = 1.0


def initial(parts: Sequence[Part], now_s: float) -> FleetState:
    """Return the state before any part is started."""
    return FleetState(MappingProxyType({part.name: PartState(since_s=now_s) for part in parts}))


def step(
    parts: Sequence[Part], state: FleetState, observation: Observation, now_s: float
) -> tuple[FleetState, tuple[Action, ...]]:
    """Process one observation at a monotonic time; return the new state and the actions to perform, in order."""
    match observation:
        case LivenessTimeout(waited_s=waited_s) if waited_s >= _LATE_TIMEOUT_S:
            pass
        case NotReady(name, reason):
            if state.parts[name].phase is Phase.STARTING:
                part_state = replace(state.parts[name], not_ready_reason=reason, reported_s=now_s)
                state = _with_parts(state, {name: part_state})
        case Ready(name) | Exited(name) | LivenessOk(name) | LivenessTimeout(name):
            transition = _TRANSITIONS.get((state.parts[name].phase, type(observation)))
            if transition is not None:
                state = _with_parts(state, {name: transition(state.parts[name], now_s)})
        case StopRequested():
            state = replace(state, mode=_MODE_AFTER_STOP[state.mode], to_restart=())
        case RestartRequested():
            if state.mode is Mode.RUNNING:
                state = replace(state, to_restart=tuple(part.name for part in parts if part.rolling))
        case Tick():
            pass
    return _decide(parts, state, now_s)


def next_wake_s(parts: Sequence[Part], state: FleetState) -> float | None:
    """Return the time at which a Tick may change something, or None while only other observations can."""
    times = [deadline_s for part in parts if (deadline_s := _deadline_s(part, state)) is not None]
    return min(times, default=None)


def _started(part_state: PartState, now_s: float) -> PartState:
    return PartState(Phase.STARTING, now_s, part_state.starts + 1, part_state.early_exits, part_state.was_ready)


def _became_ready(part_state: PartState, now_s: float) -> PartState:
    return replace(part_state, phase=Phase.READY, since_s=now_s, was_ready=True, killed=False, not_ready_reason="")


def _answered(part_state: PartState, _now_s: float) -> PartState:
    return replace(part_state, liveness_timeouts=0)


def _timed_out(part_state: PartState, _now_s: float) -> PartState:
    return replace(part_state, liveness_timeouts=part_state.liveness_timeouts + 1)


def _crashed(part_state: PartState, now_s: float) -> PartState:
    early = part_state.phase is Phase.STARTING or now_s - part_state.since_s < MIN_UPTIME_S
    exits = part_state.early_exits + 1 if early else 0
    return replace(part_state, phase=Phase.BACKOFF, since_s=now_s, early_exits=exits, killed=False, not_ready_reason="")


def _drained(part_state: PartState, now_s: float) -> PartState:
    return replace(part_state, phase=Phase.BACKOFF, since_s=now_s, early_exits=0, killed=False)


def _stopped(part_state: PartState, now_s: float) -> PartState:
    return replace(part_state, phase=Phase.STOPPED, since_s=now_s, killed=False, not_ready_reason="")


# A pair that is absent changes nothing, such as the late probe answer of a stopping part.
_TRANSITIONS: dict[tuple[Phase, type[Observation]], Callable[[PartState, float], PartState]] = {
    (Phase.STARTING, Ready): _became_ready,
    (Phase.STARTING, Exited): _crashed,
    (Phase.READY, LivenessOk): _answered,
    (Phase.READY, LivenessTimeout): _timed_out,
    (Phase.READY, Exited): _crashed,
    (Phase.DRAINING, Exited): _drained,
    (Phase.STOPPING, Exited): _stopped,
}
_MODE_AFTER_STOP = {
    Mode.RUNNING: Mode.STOPPING,
    Mode.STOPPING: Mode.STOPPING_FAST,
    Mode.STOPPING_FAST: Mode.STOPPING_FAST,
    Mode.ENDED: Mode.ENDED,
}
_ALIVE = frozenset({Phase.STARTING, Phase.READY, Phase.DRAINING, Phase.STOPPING})


def _decide(parts: Sequence[Part], state: FleetState, now_s: float) -> tuple[FleetState, tuple[Action, ...]]:
    state = _check_first_start(parts, state, now_s)
    actions: list[Action] = []
    if state.mode is Mode.RUNNING:
        state = _advance_rolling_restart(parts, state, now_s, actions)
        for part in parts:
            if _may_start(part, state, now_s):
                actions.append(Start(part.name))
                state = _with_parts(state, {part.name: _started(state.parts[part.name], now_s)})
    else:
        state = _stop_last_tier(parts, state, now_s, actions)
    for part in parts:
        deadline_s = _deadline_s(part, state)
        part_state = state.parts[part.name]
        if part_state.phase in _ALIVE and deadline_s is not None and now_s >= deadline_s:
            actions.append(Kill(part.name))
            state = _with_parts(state, {part.name: replace(part_state, killed=True)})
    return state, tuple(actions)


def _check_first_start(parts: Sequence[Part], state: FleetState, now_s: float) -> FleetState:
    """Stop everything if a part fails before the installation came up."""
    if state.mode is not Mode.RUNNING or state.came_up:
        return state
    for part in parts:
        part_state = state.parts[part.name]
        deadline_s = _deadline_s(part, state)
        late = part_state.phase is Phase.STARTING and deadline_s is not None and now_s >= deadline_s
        if not part_state.was_ready and (late or part_state.early_exits >= _MAX_FIRST_START_EXITS):
            return replace(state, mode=Mode.STOPPING, failed=part.name, to_restart=())
    return state


def _may_start(part: Part, state: FleetState, now_s: float) -> bool:
    part_state = state.parts[part.name]
    if part_state.phase is Phase.BACKOFF:
        return now_s >= part_state.since_s + _backoff_s(part_state)
    if part_state.phase is not Phase.WAITING:
        return False
    # A replica that reports why it is not ready listens already, and accepts feedback.
    serving = [state.parts[name].was_ready or bool(state.parts[name].not_ready_reason) for name in part.needs_any]
    return all(state.parts[name].was_ready for name in part.needs_all) and (any(serving) or not serving)


def _advance_rolling_restart(
    parts: Sequence[Part], state: FleetState, now_s: float, actions: list[Action]
) -> FleetState:
    rolling = [state.parts[part.name] for part in parts if part.rolling]
    if not state.to_restart or any(part_state.phase is not Phase.READY for part_state in rolling):
        return state
    name, *rest = state.to_restart
    actions.append(Stop(name))
    draining = replace(state.parts[name], phase=Phase.DRAINING, since_s=now_s, killed=False)
    return replace(_with_parts(state, {name: draining}), to_restart=tuple(rest))


def _stop_last_tier(parts: Sequence[Part], state: FleetState, now_s: float, actions: list[Action]) -> FleetState:
    idle = {
        name: part_state
        for name, part_state in state.parts.items()
        if part_state.phase in {Phase.WAITING, Phase.BACKOFF}
    }
    state = _with_parts(state, {name: _stopped(part_state, now_s) for name, part_state in idle.items()})
    alive = [part for part in parts if state.parts[part.name].phase in _ALIVE]
    if not alive:
        return replace(state, mode=Mode.ENDED)
    tier = max(part.tier for part in alive)
    for part in alive:
        part_state = state.parts[part.name]
        if part.tier == tier and part_state.phase is not Phase.STOPPING:
            # A draining part has been asked to stop; a second request might make it stop fast.
            if part_state.phase is not Phase.DRAINING:
                actions.append(Stop(part.name))
            state = _with_parts(
                state, {part.name: replace(part_state, phase=Phase.STOPPING, since_s=now_s, killed=False)}
            )
    return state


def _deadline_s(part: Part, state: FleetState) -> float | None:
    """Return when the part's phase ends without a further observation, or None."""
    part_state = state.parts[part.name]
    if part_state.killed:
        return None
    match part_state.phase:
        case Phase.STARTING:
            return max(part_state.since_s, part_state.reported_s) + part.ready_within_s
        case Phase.READY if part_state.liveness_timeouts >= _MAX_LIVENESS_TIMEOUTS:
            return part_state.since_s
        case Phase.DRAINING:
            return part_state.since_s + part.stop_within_s
        case Phase.STOPPING if state.mode is Mode.STOPPING_FAST:
            return part_state.since_s + min(_FAST_STOP_S, part.stop_within_s)
        case Phase.STOPPING:
            return part_state.since_s + part.stop_within_s
        case Phase.BACKOFF:
            return part_state.since_s + _backoff_s(part_state)
        case _:
            return None


def _backoff_s(part_state: PartState) -> float:
    return _BACKOFF_S[min(part_state.early_exits, len(_BACKOFF_S) - 1)]


def _with_parts(state: FleetState, changes: Mapping[str, PartState]) -> FleetState:
    return replace(state, parts=MappingProxyType({**state.parts, **changes}))
