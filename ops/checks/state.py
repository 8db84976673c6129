"""Checks of settings, directories, disk space, key files, the live state and the active model."""

import os
import shutil
import stat
from pathlib import Path
from typing import Final

from ops.checks.finding import Finding
from ops.options import environment
from service.config import Config
from telemetry.errors import KeyFileError, StateError
from telemetry.ids import rfc3339_ms
from telemetry.live.state_snapshot import StateSnapshot
from telemetry.secret_file import read_key

_DATE_LENGTH: Final = len("2026-11-21")


def settings(_: Config) -> Finding:
    """Name the file of settings in force."""
    file = environment.file_of(os.environ, environment.working_directory())
    n_set = sum(bool(os.environ.get(name)) for name in environment.paths_by_name())
    source = f"{file} and the environment" if file is not None else "the environment; there is no recollect.toml"
    return "ok", f"{n_set} are set, from {source}."


def home(config: Config) -> Finding:
    """Check that state and logs can be written, and that the state is private."""
    for name, folder in (("RECOLLECT_HOME", config.home), ("RECOLLECT_LOGS", config.logs)):
        if (fault := _fault_of(folder)) is not None:
            return "fail", f"{folder} {fault}; name another in {name}."
    if not config.home.exists():
        return "ok", f"{config.home} does not exist and can be made."
    mode = stat.S_IMODE(config.home.stat().st_mode)
    if mode != 0o700:
        sentence = f"{config.home} has mode {mode:04o}, so other users may read events: chmod 700 {config.home}."
        return "warn", sentence
    return "ok", f"{config.home} is writable, mode 0700."


def disk(config: Config, *, warn_below_bytes: int = 2 << 30, fail_below_bytes: int = 256 << 20) -> Finding:
    """Compare the free space under state and logs with two bounds."""
    free_bytes, where = min((shutil.disk_usage(path).free, path) for path in map(_existing, (config.home, config.logs)))
    sentence = f"{free_bytes / (1 << 30):.1f} GiB free at {where}."
    if free_bytes < fail_below_bytes:
        return "fail", f"Only {sentence}"
    return ("warn" if free_bytes < warn_below_bytes else "ok"), sentence


def key_files(config: Config) -> Finding:
    """Read the key files of telemetry, as a start does."""
    config.pseudonymiser()
    if config.watermark_key_file is not None:
        try:
            read_key(config.watermark_key_file, "watermark key")
        except KeyFileError as error:
            return "fail", f"RECOLLECT_WATERMARK_KEY_FILE: {error}"
    ids = "as they are" if config.pseudonym_key_file is None else f"as pseudonyms, by {config.pseudonym_key_file}"
    return "ok", f"Telemetry keeps user ids {ids}."


def live_state(config: Config) -> Finding:
    """Read the state snapshot, and compare it with its checksums."""
    try:
        snapshot = StateSnapshot.open(config.state_dir)
        snapshot.verify()
    except StateError as error:
        return "warn", f"{error} The consumer makes it anew from the archive when it starts."
    if snapshot.stamp is None:
        return "ok", "There is no state snapshot yet; the consumer makes it."
    since = rfc3339_ms(snapshot.since_ms / 1000)[:_DATE_LENGTH]
    size = f"{snapshot.size_bytes / 1e6:.1f} MB of {config.live.state_bytes / 1e6:.0f} MB"
    return "ok", f"{snapshot.n_events:,} live events since {since}, {size}."


def model(config: Config) -> Finding:
    """Load the active model, and those that roles have of their own."""
    from service.errors import ModelMissing
    from service.models.files import active_model
    from service.models.roles import SEPARATE

    try:
        active = active_model.load(config.models_dir, config.models.load_timeout_s)
    except ModelMissing:
        # An active version whose files are gone is a fault; no active version is not.
        if active_model.version(config.models_dir) is not None:
            raise
        return "warn", "No model is active; recollect train or recollect up makes one."
    if active_model.own_roles(config.models_dir):
        found = {role: active_model.load(config.models_dir, config.models.load_timeout_s, role) for role in SEPARATE}
        serving = ", ".join(f"{role} {one.version}" for role, one in found.items())
        if found["ranking"].embedding_space not in {None, found["candidates"].embedding_space}:
            return "warn", f"The roles serve versions of two embedding spaces, so that lists are degraded: {serving}."
        return "ok", f"Each role has its version: {serving}."
    return "ok", f"{active.version}: {len(active.users)} users, {len(active.items)} items, {active.n_factors} factors."


def _fault_of(folder: Path) -> str | None:
    """Return why files cannot be written in a folder, which may not exist yet; None if they can."""
    parent = _existing(folder)
    if parent == folder:
        if not folder.is_dir():
            return "is not a directory"
        return None if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else "cannot be written by this user"
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return None
    return f"does not exist and cannot be made in {parent}"


def _existing(path: Path) -> Path:
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())
