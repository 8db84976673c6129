"""What a command takes from its surroundings: the settings of the environment and of a recollect.toml, checked.

Invariant: after `adopt`, the environment holds every setting that was given anywhere, each of them known and within its
bounds, with RECOLLECT_HOME and RECOLLECT_LOGS as absolute paths, and says that no file is to be read any more; so every
command and every part that it starts means the same installation, whatever folder it is started in.
"""

import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

from loadbalancer.errors import BadSetting
from loadbalancer.settings import BalancerSettings
from service.config import Config, from_env
from service.declared_settings import declared, read
from service.errors import UsageError, did_you_mean

FILE: Final = "recollect.toml"
# Every table of settings, by its title in docs/settings.md.
TABLES: Final[dict[str, type[Any]]] = {
    "Service, models, logs and telemetry": Config,
    "Balancer and processes": BalancerSettings,
}

_PREFIX: Final = "RECOLLECT_"
_FILE: Final = "RECOLLECT_FILE"
# Before the name of a file whose settings are in the environment already, so that a part which is started without some
# of them, as in a drill, does not find them again.
_READ: Final = "read:"
# Variables of the tests and of the failure drill; they are no settings.
_NOT_SETTINGS: Final = ("RECOLLECT_TEST_", "RECOLLECT_DRILL_")
# Beside the code in a checkout, not in an installed wheel.
_BESIDE_THE_CODE: Final = Path(__file__).resolve().parents[2] / FILE


def adopt(environ: MutableMapping[str, str], folder: Path) -> None:
    """Add the settings of the recollect.toml that counts here to the environment, which wins, and check them all.

    Args:
        environ: The environment; it is changed.
        folder: Where the search for the file begins, the working directory.

    Raises:
        UsageError: A setting is unknown, out of its bounds, or does not go with another; the file cannot be used; or
            there is no place for state.
        BadSetting: A setting of the balancer cannot work.
    """
    known = paths_by_name()
    for name in sorted(environ):
        if name.startswith(_PREFIX) and name not in known and not name.startswith(_NOT_SETTINGS):
            raise UsageError(f"There is no setting {name}{did_you_mean(name, known)}; docs/settings.md has them all.")
    file = file_of(environ, folder)
    given = {} if file is None or environ.get(_FILE, "").startswith(_READ) else settings_of(file)
    if environ.get("RECOLLECT_HOME"):
        # The logs of one installation are not to be mixed with those of another.
        given.pop("RECOLLECT_LOGS", None)
    # An empty variable counts as absent.
    filed = {name: value for name, value in given.items() if not environ.get(name)}
    environ.update(filed)
    try:
        config = from_env(environ)
        _check_together(config, read(BalancerSettings, environ))
    except FileNotFoundError:
        raise UsageError("The working directory is gone, and a setting names a path relative to it.") from None
    except (UsageError, BadSetting) as error:
        # The sentence names the variable, which the reader of a file has not set.
        lines = ", ".join(sorted(name.removeprefix(_PREFIX).lower() for name in filed if _names(str(error), name)))
        if not lines:
            raise
        raise type(error)(f"{str(error).removesuffix('.')} ({lines} in {file}).") from None
    environ.update({"RECOLLECT_HOME": str(config.home), "RECOLLECT_LOGS": str(config.logs)})
    environ[_FILE] = f"{_READ}{file or 'none'}"


def _names(sentence: str, name: str) -> bool:
    """Say whether a sentence names a variable, and not another whose name only begins with its."""
    return re.search(rf"{name}(?![A-Z_])", sentence) is not None


def working_directory() -> Path:
    """Return where the search for the file begins; the root where the working directory is gone."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


def file_of(environ: Mapping[str, str], folder: Path) -> Path | None:
    """Return the recollect.toml that counts: the one that RECOLLECT_FILE names, else the one that is found.

    Raises:
        UsageError: The one that is found belongs to another user.
    """
    named = environ.get(_FILE, "").removeprefix(_READ)
    if named:
        return None if named == "none" else Path(named).absolute()
    return find(folder)


def find(folder: Path) -> Path | None:
    """Return the recollect.toml of a folder or of the nearest one above it, else the one beside the code, if any.

    Raises:
        UsageError: It belongs to a user whose settings, such as the program to run as nginx, must not be ours.
    """
    for parent in (folder, *folder.parents):
        file = parent / FILE
        # What cannot be looked into is passed over.
        if os.path.isfile(file):  # noqa: PTH113
            if file.stat().st_uid not in {os.geteuid(), 0, Path(__file__).stat().st_uid}:
                raise UsageError(
                    f"{file} belongs to another user, whose settings are not for this one: "
                    "remove it, or work in another folder."
                )
            return file
    return _BESIDE_THE_CODE if _BESIDE_THE_CODE.is_file() else None


def settings_of(file: Path) -> dict[str, str]:
    """Read a recollect.toml: names as in the environment, without the prefix and in small letters.

    Relative paths are relative to the file.

    Returns:
        The variables with their values as text.

    Raises:
        UsageError: It is not TOML, or has an unknown setting or a value of the wrong kind.
    """
    import tomllib

    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from None
    known = paths_by_name()
    found: dict[str, str] = {}
    for key, value in content.items():
        name = _PREFIX + key.upper()
        if name not in known or key != key.lower() or name == _FILE:
            keys = [each.removeprefix(_PREFIX).lower() for each in known if each != _FILE]
            meant = did_you_mean(key.lower().removeprefix(_PREFIX.lower()), keys)
            raise UsageError(f"{file} has no setting {key!r}{meant}; docs/settings.md has them all.")
        if not isinstance(value, str | int | float):
            raise UsageError(f"{file}: {key} must be a text, a number, true or false.")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        found[name] = str(file.parent / text) if known[name] and text else text
    return found


def paths_by_name() -> dict[str, bool]:
    """Return every setting's variable, and whether its value is a path."""
    return {setting.label: setting.kind is Path for table in TABLES.values() for setting in declared(table)}


def _check_together(config: Config, balancer: BalancerSettings) -> None:
    """Refuse settings of which each could be so, but not both."""
    keepalive_s, upstream_s = config.server.keepalive_timeout_s, balancer.upstream_keepalive_s
    accept_s, events_ms = config.producer.accept_timeout_s, balancer.events_timeout_ms
    takeover_s, heartbeat_s = config.consumer.takeover_s, config.consumer.heartbeat_s
    rules = {
        f"RECOLLECT_KEEPALIVE_TIMEOUT_S ({keepalive_s:g}) must be above RECOLLECT_UPSTREAM_KEEPALIVE_S ({upstream_s}):"
        " nginx would send requests into connections that a replica closes.": keepalive_s > upstream_s,
        f"RECOLLECT_SPOOL_ACCEPT_TIMEOUT_S ({accept_s:g}) must be below RECOLLECT_EVENTS_TIMEOUT_MS ({events_ms}):"
        " nginx would give up first.": accept_s * 1000 < events_ms,
        f"RECOLLECT_CONSUMER_TAKEOVER_S ({takeover_s:g}) must be at least twice RECOLLECT_CONSUMER_HEARTBEAT_S"
        f" ({heartbeat_s:g}): a standby would take a lease that is held.": takeover_s >= 2 * heartbeat_s,
    }
    for sentence, holds in rules.items():
        if not holds:
            raise UsageError(sentence)
