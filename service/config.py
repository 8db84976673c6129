"""Every setting of the service, as one tree of frozen dataclasses; only this module reads them from the environment.

docs/settings.md is this table; a test holds the two together. `service.declared_settings` defines the declarations.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from service.candidates.settings import CandidatesConfig
from service.declared_settings import read
from service.errors import UsageError
from service.lists.settings import ExplorationConfig, LiveListConfig
from service.models.history.event_values import EventValues
from service.models.history.rating_scale import RatingScale
from service.models.roles import ROLES, Role
from service.serving.http.settings import ServerConfig
from telemetry.errors import FailpointError, KeyFileError, StreamError
from telemetry.failpoints import Failpoints
from telemetry.pseudonym import Pseudonymiser
from telemetry.secret_file import read_key
from telemetry.settings import ConsumerSettings, LiveSettings, ProducerSettings
from telemetry.stream.key_names import DEFAULT_NAMESPACE, KeyNames


@dataclass(frozen=True)
class ModelConfig:
    """The models of a replica and of training."""

    watch_interval_s: Annotated[
        float,
        {"env": "RECOLLECT_MODEL_WATCH_INTERVAL_S", "unit": "s"},
        "How often a replica checks for another active version.",
    ] = 0.5
    load_timeout_s: Annotated[
        float,
        {"env": "RECOLLECT_MODEL_LOAD_TIMEOUT_S", "unit": "s"},
        "How long reading and checking an activated model may take; then the load is abandoned and tried again later.",
    ] = 60.0
    popularity_half_life_days: Annotated[
        float | None,
        {"env": "RECOLLECT_POPULARITY_HALF_LIFE_DAYS", "unit": "days"},
        "Age at which an interaction counts half as much towards popularity, at training time; without it, the one "
        "whose popular lists hold most of the latest interactions of the training data.",
    ] = None
    selection_budget_s: Annotated[
        float,
        {"env": "RECOLLECT_SELECTION_BUDGET_S", "unit": "s"},
        "How long `auto` may measure its candidates for a million interactions or 4,000 items; other data gets its "
        "share, from 9 s of 60 s to five times as much.",
    ] = 60.0
    index_items: Annotated[
        int,
        {"env": "RECOLLECT_INDEX_ITEMS", "unit": "items", "least": 1000},
        "From how many items on a new model with factors gets an approximate index of its items, which needs the extra "
        "`ann`; lists of smaller catalogues are exact.",
    ] = 50_000
    index_recall_floor: Annotated[
        float,
        {"env": "RECOLLECT_INDEX_RECALL_FLOOR", "unit": "share", "least": 0, "most": 1},
        "The share of the ten best items of a user that an index must find, or it is refused and lists stay exact.",
    ] = 0.95
    checkpoint_interval_s: Annotated[
        float,
        {"env": "RECOLLECT_CHECKPOINT_INTERVAL_S", "unit": "s"},
        "How often a training writes a checkpoint, from which the same training continues after it was killed; less "
        "often where that would take more than a twentieth of the time.",
    ] = 30.0
    rating_scale: Annotated[
        str | None,
        {"env": "RECOLLECT_RATING_SCALE", "unit": "LOW:HIGH"},
        "The least and the largest rating, such as `1:5`; training clips ratings outside, and such events are marked.",
    ] = None

    initial_dir: Annotated[
        Path | None,
        {"env": "RECOLLECT_INITIAL_MODELS", "unit": "path"},
        "A model store, `models/` of another installation, whose active version `up` serves as long as it has no "
        "model of its own and is given no other data.",
    ] = None

    @property
    def declared_scale(self) -> RatingScale | None:
        """The declared rating scale, or None.

        Raises:
            UsageError: The text is no scale; `from_env` checks it.
        """
        return None if self.rating_scale is None else RatingScale.parse(self.rating_scale, "RECOLLECT_RATING_SCALE")


@dataclass(frozen=True)
class EventsConfig:
    """The marks of events on receipt."""

    clock_skew_ahead_s: Annotated[
        float,
        {"env": "RECOLLECT_CLOCK_SKEW_AHEAD_S", "unit": "s"},
        "How far a client's time may be ahead of the replica's clock before its event is marked `clock_skew`.",
    ] = 300.0
    clock_skew_behind_s: Annotated[
        float,
        {"env": "RECOLLECT_CLOCK_SKEW_BEHIND_S", "unit": "s"},
        "How far a client's time may be behind the replica's clock before its event is marked `clock_skew`.",
    ] = 2592000.0


@dataclass(frozen=True)
class LogConfig:
    """The application log."""

    output: Annotated[
        str,
        {"env": "RECOLLECT_LOG_OUTPUT", "unit": "place", "choices": ("files", "stderr")},
        "Where `serve` and `consume` write their log: to files in RECOLLECT_LOGS, or to standard error, which "
        "containers collect; the parts of `up` and `balance` always write files.",
    ] = "files"
    level: Annotated[
        str,
        {"env": "RECOLLECT_LOG_LEVEL", "unit": "level", "choices": ("debug", "info", "warning", "error")},
        "The least level written: debug, info, warning, error.",
    ] = "info"
    queue_lines: Annotated[
        int,
        {"env": "RECOLLECT_LOG_QUEUE_LINES", "unit": "lines"},
        "Lines that may wait for the writer thread; more are counted and dropped.",
    ] = 10000
    file_bytes: Annotated[
        int, {"env": "RECOLLECT_LOG_FILE_BYTES", "unit": "bytes"}, "Size at which a log file is rotated."
    ] = 67108864
    file_count: Annotated[
        int,
        {"env": "RECOLLECT_LOG_FILE_COUNT", "unit": "files", "least": 0, "most": 1000},
        "Rotated log files that are kept.",
    ] = 5


@dataclass(frozen=True)
class Config:
    """All settings of the service."""

    home: Annotated[
        Path,
        {"env": "RECOLLECT_HOME", "unit": "directory"},
        "Where all state lives; without it `recollect` in XDG_STATE_HOME, if that is set.",
    ] = Path("~/.local/state/recollect")
    logs: Annotated[
        Path,
        {"env": "RECOLLECT_LOGS", "unit": "directory"},
        "Where application logs go; without it the folder `logs` in RECOLLECT_HOME.",
    ] = Path("logs")
    file: Annotated[
        str | None,
        {"env": "RECOLLECT_FILE", "unit": "path"},
        "The recollect.toml to read instead of one that is found, `none` for none; only in the environment.",
    ] = None
    redis_url: Annotated[
        str | None,
        {"env": "RECOLLECT_REDIS_URL", "unit": "URL"},
        "The Redis that carries telemetry; without it `up` starts its own, and other commands try "
        "redis://127.0.0.1:6379/0.",
    ] = None
    redis_namespace: Annotated[
        str,
        {"env": "RECOLLECT_REDIS_NAMESPACE", "unit": "name"},
        "The beginning of every key in Redis; installations that share a Redis need one each.",
    ] = DEFAULT_NAMESPACE
    pseudonym_key_file: Annotated[
        Path | None,
        {"env": "RECOLLECT_PSEUDONYM_KEY_FILE", "unit": "path"},
        "A file of at least 32 bytes that only its owner can access, or root's that a group may read; with it, "
        "telemetry keeps pseudonyms instead of user ids.",
    ] = None
    watermark_key_file: Annotated[
        Path | None,
        {"env": "RECOLLECT_WATERMARK_KEY_FILE", "unit": "path"},
        "The key that seals watermarks, a file of 32 bytes or more that only its owner can access, or root's that a "
        "group may read; the consumer and every replica need the same one. Without it, `archive/watermark.key` in the "
        "home directory, which is made at first use.",
    ] = None
    keys_file: Annotated[
        Path | None,
        {"env": "RECOLLECT_KEYS_FILE", "unit": "path"},
        "The file of API keys; without it `security/keys.json` in the home directory. It may be read-only, as a "
        "mounted secret is; then keys are made elsewhere.",
    ] = None
    cluster_token_file: Annotated[
        Path | None,
        {"env": "RECOLLECT_CLUSTER_TOKEN_FILE", "unit": "path"},
        "The token of the cluster, the same on all of its machines, a file that only its owner can access; without it "
        "`cluster/token` in the home directory, which `recollect cluster head` makes.",
    ] = None
    keys_required: Annotated[
        bool,
        {"env": "RECOLLECT_KEYS_REQUIRED", "unit": "true or false"},
        "Whether a replica refuses to start without API keys; `up` and `balance` set it for their replicas "
        "once there are keys.",
    ] = False
    role: Annotated[
        str,
        {"env": "RECOLLECT_ROLE", "unit": "role", "choices": ROLES},
        "What a replica of `recollect serve` does: find candidates, rank, or all in one process.",
    ] = "all"
    failpoint: Annotated[
        str | None,
        {"env": "RECOLLECT_FAILPOINT", "unit": "failpoints"},
        "For drills: a failpoint of `telemetry/failpoints.py` and what the process does there, as "
        "`name:kill`, `name:pause` or `name:raise`; `:n` selects the nth time, commas separate several.",
    ] = None
    server: ServerConfig = field(default_factory=ServerConfig)
    candidates: CandidatesConfig = field(default_factory=CandidatesConfig)
    events: EventsConfig = field(default_factory=EventsConfig)
    event_values: EventValues = field(default_factory=EventValues)
    models: ModelConfig = field(default_factory=ModelConfig)
    live_lists: LiveListConfig = field(default_factory=LiveListConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    log: LogConfig = field(default_factory=LogConfig)
    producer: ProducerSettings = field(default_factory=ProducerSettings)
    consumer: ConsumerSettings = field(default_factory=ConsumerSettings)
    live: LiveSettings = field(default_factory=LiveSettings)

    @property
    def stream_url(self) -> str:
        """The URL of the Redis that carries telemetry."""
        return self.redis_url or "redis://127.0.0.1:6379/0"

    @property
    def replica_role(self) -> Role:
        """The role of a replica, one of `ROLES`."""
        return next(role for role in ROLES if role == self.role)

    @property
    def models_dir(self) -> Path:
        """The published models."""
        return self.home / "models"

    @property
    def checkpoints_dir(self) -> Path:
        """The checkpoints of a training that runs or was killed."""
        return self.home / "checkpoints"

    @property
    def cluster_dir(self) -> Path:
        """What this machine keeps of a cluster that it is a part of."""
        return self.home / "cluster"

    @property
    def executor_dir(self) -> Path:
        """Where the workers of a command on this machine find what they work on; gone with it, or with the next one."""
        return self.home / "executor"

    @property
    def generated_dir(self) -> Path:
        """The lists of `recollect generate` that name no other folder."""
        return self.home / "generated"

    @property
    def spool_dir(self) -> Path:
        """The telemetry slots of the replicas."""
        return self.home / "spool"

    @property
    def archive_dir(self) -> Path:
        """The archive."""
        return self.home / "archive"

    @property
    def state_dir(self) -> Path:
        """The snapshot of live state."""
        return self.home / "state"

    @property
    def security_dir(self) -> Path:
        """The API keys and the security log."""
        return self.home / "security"

    def pseudonymiser(self) -> Pseudonymiser:
        """Read the key of the pseudonyms; without a key file, a user id is its own pseudonym.

        Raises:
            UsageError: The file cannot be used.
        """
        return Pseudonymiser(self.pseudonym_key())

    def pseudonym_key(self) -> bytes | None:
        """Read the key of the pseudonyms; None without a key file.

        Raises:
            UsageError: The file cannot be used.
        """
        if self.pseudonym_key_file is None:
            return None
        try:
            return read_key(self.pseudonym_key_file, "pseudonym key")
        except KeyFileError as error:
            raise UsageError(f"RECOLLECT_PSEUDONYM_KEY_FILE: {error}") from None


def from_env(environ: Mapping[str, str]) -> Config:
    """Read all settings from the environment; paths become absolute.

    Raises:
        UsageError: A value is of the wrong kind or out of bounds.
    """
    config = read(Config, environ)
    try:
        Failpoints.parse(config.failpoint)
    except FailpointError as error:
        raise UsageError(f"RECOLLECT_FAILPOINT: {error}") from None
    _ = config.models.declared_scale
    _ = config.live_lists.seen
    _ = config.candidates.addresses
    try:
        KeyNames(config.redis_namespace)
    except StreamError as error:
        raise UsageError(f"RECOLLECT_REDIS_NAMESPACE: {error}") from None
    key_file, sealing_file, keys_file = config.pseudonym_key_file, config.watermark_key_file, config.keys_file
    token_file = config.cluster_token_file
    home = config.home.absolute() if environ.get("RECOLLECT_HOME") else _default_home(environ)
    return dataclasses.replace(
        config,
        home=home,
        logs=config.logs.absolute() if environ.get("RECOLLECT_LOGS") else home / "logs",
        pseudonym_key_file=None if key_file is None else key_file.absolute(),
        watermark_key_file=None if sealing_file is None else sealing_file.absolute(),
        keys_file=None if keys_file is None else keys_file.absolute(),
        cluster_token_file=None if token_file is None else token_file.absolute(),
    )


def _default_home(environ: Mapping[str, str]) -> Path:
    """Return the user's folder for state (XDG Base Directory, version 0.8).

    Raises:
        UsageError: The user has none.
    """
    for name, below in (("XDG_STATE_HOME", "recollect"), ("HOME", ".local/state/recollect")):
        # The specification ignores relative paths.
        if (base := environ.get(name, "")).startswith("/"):
            return Path(base, below)
    raise UsageError(
        "There is no folder for state: name one in RECOLLECT_HOME (this user has no home directory in HOME)."
    )
