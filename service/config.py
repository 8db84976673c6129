"""Every setting, as one tree of frozen dataclasses, and the only place that reads the environment.

A field's metadata says its variable (`env`), its `unit` and, in one sentence (`doc`), what it does. docs/settings.md is
this table; a test holds the two together. Packages that may not import this one (telemetry, loadbalancer) declare
their settings the same way and are read by the same function.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from service.errors import UsageError
from service.models.rating_scale import RatingScale
from telemetry.errors import FailpointError, KeyFileError, StreamError
from telemetry.failpoints import Failpoints
from telemetry.pseudonym import Pseudonymiser
from telemetry.settings import ConsumerSettings, ProducerSettings
from telemetry.stream.key_names import DEFAULT_NAMESPACE, Keys

T = TypeVar("T")


def _setting(default: Any, env: str, unit: str, doc: str, **bounds: Any) -> Any:
    """Declare a setting; `least` and `most` bound a number more closely than its unit does, `choices` are all words."""
    return field(default=default, metadata={"env": env, "unit": unit, "doc": doc, **bounds})


@dataclass(frozen=True)
class ServerConfig:
    """One replica's HTTP side."""

    host: str = _setting("127.0.0.1", "RECOLLECT_HOST", "address", "Where a replica listens for requests.")
    port: int = _setting(8081, "RECOLLECT_REPLICA_PORT", "port", "The port of a replica started by `recollect serve`.")
    admin_port: int = _setting(
        8091, "RECOLLECT_ADMIN_PORT", "port", "The port for metrics and readiness, always on 127.0.0.1."
    )
    keepalive_timeout_s: float = _setting(
        15.0,
        "RECOLLECT_KEEPALIVE_TIMEOUT_S",
        "s",
        "How long an idle connection, or one whose headers never end, stays open; must be above"
        " RECOLLECT_UPSTREAM_KEEPALIVE_S, or nginx sends requests into connections that close.",
    )
    body_timeout_s: float = _setting(
        2.0, "RECOLLECT_BODY_TIMEOUT_S", "s", "How long a request body may take to arrive."
    )
    body_limit_bytes: int = _setting(
        65536,
        "RECOLLECT_BODY_LIMIT_BYTES",
        "bytes",
        "The largest request body, from 1 KiB to 64 KiB, which is what nginx takes.",
        least=1024,
        most=65536,
    )
    drain_timeout_s: float = _setting(
        8.0, "RECOLLECT_DRAIN_TIMEOUT_S", "s", "The longest a stopping replica waits for connections and events."
    )
    list_target_s: float = _setting(
        0.05,
        "RECOLLECT_LIST_TARGET_S",
        "s",
        "How long a list may take at a replica under load before fewer are taken on and more are refused with 503.",
    )
    feedback_target_s: float = _setting(
        0.3,
        "RECOLLECT_FEEDBACK_TARGET_S",
        "s",
        "The same for events, the disk included; longer, so that lists are refused first.",
    )
    backlog: int = _setting(1024, "RECOLLECT_BACKLOG", "connections", "Connections that may wait to be accepted.")


@dataclass(frozen=True)
class ModelConfig:
    """How replicas follow the published models."""

    watch_interval_s: float = _setting(
        0.5, "RECOLLECT_MODEL_WATCH_INTERVAL_S", "s", "How often a replica looks whether another model was activated."
    )
    load_timeout_s: float = _setting(
        60.0,
        "RECOLLECT_MODEL_LOAD_TIMEOUT_S",
        "s",
        "How long reading and checking an activated model may take before it is given up and tried again later.",
    )
    popularity_half_life_days: float = _setting(
        180.0,
        "RECOLLECT_POPULARITY_HALF_LIFE_DAYS",
        "days",
        "Age at which an interaction counts half as much towards popularity, at training time.",
    )
    rating_scale: str | None = _setting(
        None,
        "RECOLLECT_RATING_SCALE",
        "LOW:HIGH",
        "The least and the largest rating, such as `1:5`; training clips to it what lies outside, and such events are"
        " marked.",
    )

    @property
    def declared_scale(self) -> RatingScale | None:
        """The rating scale that was declared; None where none was.

        Raises:
            UsageError: It is no scale; `from_env` finds that out.
        """
        return None if self.rating_scale is None else RatingScale.parse(self.rating_scale, "RECOLLECT_RATING_SCALE")


@dataclass(frozen=True)
class EventsConfig:
    """What the edge notes about the events it takes."""

    clock_skew_ahead_s: float = _setting(
        300.0,
        "RECOLLECT_CLOCK_SKEW_AHEAD_S",
        "s",
        "How far a client's time may be ahead of ours before its event is marked `clock_skew`.",
    )
    clock_skew_behind_s: float = _setting(
        2592000.0,
        "RECOLLECT_CLOCK_SKEW_BEHIND_S",
        "s",
        "How far a client's time may be behind ours before its event is marked `clock_skew`.",
    )


@dataclass(frozen=True)
class LogConfig:
    """The application's own log; telemetry never passes through it."""

    level: str = _setting(
        "info",
        "RECOLLECT_LOG_LEVEL",
        "level",
        "The least level written: debug, info, warning, error.",
        choices=("debug", "info", "warning", "error"),
    )
    queue_lines: int = _setting(
        10000,
        "RECOLLECT_LOG_QUEUE_LINES",
        "lines",
        "Lines that may wait for the writer thread; more are counted and dropped.",
    )
    file_bytes: int = _setting(67108864, "RECOLLECT_LOG_FILE_BYTES", "bytes", "Size at which a log file is rotated.")
    file_count: int = _setting(5, "RECOLLECT_LOG_FILE_COUNT", "files", "Rotated log files that are kept.")


@dataclass(frozen=True)
class Config:
    """The whole tree."""

    home: Path = _setting(
        Path("~/.local/state/recollect"),
        "RECOLLECT_HOME",
        "directory",
        "Where all state lives; without it `recollect` in XDG_STATE_HOME, if that is set.",
    )
    logs: Path = _setting(
        Path("logs"),
        "RECOLLECT_LOGS",
        "directory",
        "Where application logs go; without it the folder `logs` in RECOLLECT_HOME.",
    )
    file: str | None = _setting(
        None,
        "RECOLLECT_FILE",
        "path",
        "The recollect.toml to read instead of one that is found, `none` for none; only in the environment.",
    )
    redis_url: str | None = _setting(
        None,
        "RECOLLECT_REDIS_URL",
        "URL",
        "The Redis that carries telemetry; without it `up` starts its own, and other commands try redis://127.0.0.1:6379/0.",
    )
    redis_namespace: str = _setting(
        DEFAULT_NAMESPACE,
        "RECOLLECT_REDIS_NAMESPACE",
        "name",
        "What every key in Redis begins with; installations that share a Redis need one each.",
    )
    pseudonym_key_file: Path | None = _setting(
        None,
        "RECOLLECT_PSEUDONYM_KEY_FILE",
        "path",
        "A file of at least 32 bytes, its owner's alone; with it, telemetry keeps pseudonyms instead of user ids.",
    )
    watermark_key_file: Path | None = _setting(
        None,
        "RECOLLECT_WATERMARK_KEY_FILE",
        "path",
        "The key that the consumer seals watermarks with, 32 bytes or more, its owner's alone; every replica needs the"
        " same one. Without it, `archive/watermark.key` in the home directory, which is made if need be.",
    )
    keys_required: bool = _setting(
        False,
        "RECOLLECT_KEYS_REQUIRED",
        "true or false",
        "Whether a replica refuses to start without API keys; `up` and `balance` set it for theirs once there are any.",
    )
    failpoint: str | None = _setting(
        None,
        "RECOLLECT_FAILPOINT",
        "failpoints",
        "For drills: where a process is to die, freeze or fail, as `name:kill`, `name:pause` or `name:raise`, with"
        " `:n` at the nth time only, separated by commas; the names are in `telemetry/failpoints.py`.",
    )
    server: ServerConfig = field(default_factory=ServerConfig)
    events: EventsConfig = field(default_factory=EventsConfig)
    models: ModelConfig = field(default_factory=ModelConfig)
    log: LogConfig = field(default_factory=LogConfig)
    producer: ProducerSettings = field(default_factory=ProducerSettings)
    consumer: ConsumerSettings = field(default_factory=ConsumerSettings)

    @property
    def stream_url(self) -> str:
        """The Redis of producers and consumers."""
        return self.redis_url or "redis://127.0.0.1:6379/0"

    @property
    def models_dir(self) -> Path:
        """Where models are published."""
        return self.home / "models"

    @property
    def spool_dir(self) -> Path:
        """Where replicas keep their telemetry slots."""
        return self.home / "spool"

    @property
    def archive_dir(self) -> Path:
        """Where the consumer archives events."""
        return self.home / "archive"

    @property
    def security_dir(self) -> Path:
        """Where API keys and the security log are."""
        return self.home / "security"

    def pseudonymiser(self) -> Pseudonymiser:
        """Read the key of the pseudonyms; without a key file, user ids are their own.

        Raises:
            UsageError: The file cannot be used; says why.
        """
        try:
            return Pseudonymiser.from_file(self.pseudonym_key_file)
        except KeyFileError as error:
            raise UsageError(f"RECOLLECT_PSEUDONYM_KEY_FILE: {error}") from None


def from_env(environ: Mapping[str, str]) -> Config:
    """Read the whole tree from the environment; paths become absolute.

    Raises:
        UsageError: A variable has a value of the wrong type, or a number that cannot be one of its unit.
    """
    config = read(Config, environ)
    _check(config)
    try:
        Failpoints.parse(config.failpoint)
    except FailpointError as error:
        raise UsageError(f"RECOLLECT_FAILPOINT: {error}") from None
    _ = config.models.declared_scale
    try:
        Keys(config.redis_namespace)
    except StreamError as error:
        raise UsageError(f"RECOLLECT_REDIS_NAMESPACE: {error}") from None
    key_file, sealing_file = config.pseudonym_key_file, config.watermark_key_file
    home = config.home.absolute() if environ.get("RECOLLECT_HOME") else _fixed_home(environ)
    return dataclasses.replace(
        config,
        home=home,
        logs=config.logs.absolute() if environ.get("RECOLLECT_LOGS") else home / "logs",
        pseudonym_key_file=None if key_file is None else key_file.absolute(),
        watermark_key_file=None if sealing_file is None else sealing_file.absolute(),
    )


def _fixed_home(environ: Mapping[str, str]) -> Path:
    """Return where state lives if nothing else is said: the user's folder for state (XDG Base Directory, version 0.8).

    Raises:
        UsageError: There is none.
    """
    for name, below in (("XDG_STATE_HOME", "recollect"), ("HOME", ".local/state/recollect")):
        # The specification has relative paths ignored.
        if (base := environ.get(name, "")).startswith("/"):
            return Path(base, below)
    raise UsageError(
        "there is no place for state: name a directory in RECOLLECT_HOME (this user has no home directory in HOME)"
    )


def read(cls: type[T], environ: Mapping[str, str]) -> T:
    """Build one settings dataclass, and those it holds, from the environment.

    Args:
        cls: A dataclass whose fields carry `env` in their metadata or are such dataclasses themselves.
        environ: The environment; an empty value counts as absent.

    Raises:
        UsageError: A variable has a value of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is a dataclass by contract
        if dataclasses.is_dataclass(hints[spec.name]):
            values[spec.name] = read(typing.cast("type[Any]", hints[spec.name]), environ)
            continue
        text = environ.get(spec.metadata["env"], "")
        if text:
            values[spec.name] = _parse(text, hints[spec.name], spec.metadata["env"])
    return cls(**values)


def describe(cls: type[Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (variable, default, unit, sentence) for every setting in a tree, in order of declaration."""
    hints = typing.get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[spec.name]):
            yield from describe(typing.cast("type[Any]", hints[spec.name]))
        else:
            default = "" if spec.default is None else str(spec.default)
            if isinstance(spec.default, bool):
                default = default.lower()
            yield spec.metadata["env"], default, spec.metadata["unit"], spec.metadata["doc"]


_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

# Units in which 0 means something, and those with an end; numbers of all others are above 0. Without these bounds a
# 0 would mean "no limit" to a queue, and a negative pause "no pause" to a loop.
_BOUNDS: Final = {"port": (1, 65535), "files": (0, 1000), "processes": (0, 64), "1": (0, 1)}


def _parse(text: str, hint: Any, env: str) -> Any:
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    try:
        if hint is bool:
            return _BOOLEANS[text.lower()]
        return hint(text)
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(hint, f"a {hint.__name__}")
        raise UsageError(f"{env} must be {kind}, not {text!r}") from None


def _check(settings: Any) -> None:
    """Refuse numbers that cannot be one of their unit, in a dataclass and those it holds."""
    for spec in dataclasses.fields(settings):
        value = getattr(settings, spec.name)
        if dataclasses.is_dataclass(value):
            _check(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            must = _missed(value, spec.metadata)
            if must is not None:
                raise UsageError(f"{spec.metadata['env']} must be {must}, not {value}")
        elif value not in spec.metadata.get("choices", (value,)):
            raise UsageError(
                f"{spec.metadata['env']} must be one of {', '.join(spec.metadata['choices'])}, not {value!r}"
            )


def _missed(value: float, metadata: Mapping[str, Any]) -> str | None:
    """Return what a number must be and is not, by its own bounds or its unit's; None if it may be so."""
    least, most = _BOUNDS.get(metadata["unit"], (metadata.get("least"), metadata.get("most")))
    if least is not None and most is not None:
        return None if least <= value <= most else f"from {least} to {most}"
    if least is not None:
        return None if least <= value < math.inf else f"at least {least} and finite"
    if most is not None:
        return None if 0 < value <= most else f"above 0 and at most {most}"
    return None if 0 < value < math.inf else "above 0 and finite"
