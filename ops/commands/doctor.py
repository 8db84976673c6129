"""`recollect doctor`: is this installation sound? One finding per check.

The invariant: a check reads and never changes anything, and every check gives a finding: `fail` for what keeps
Recollect from running or would make it run something else, `warn` for what it can run with, `ok` otherwise.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import resource
import shutil
import ssl
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from loadbalancer import binaries, foreign_listeners, ports, redis_conf, roster
from loadbalancer.errors import BalancerError, PortTaken
from loadbalancer.settings import BalancerSettings
from loadbalancer.topology import address
from ops.checks import open_files
from ops.checks.redis_health import redis_health
from ops.options import environment
from service.config import Config
from service.declared_settings import read
from service.errors import RecollectError
from telemetry.errors import KeyFileError, TelemetryError
from telemetry.secret_file import read_key

Status = Literal["ok", "warn", "fail"]

_DISTRIBUTION = "recollect"
_PACKAGES = ("service", "telemetry", "loadbalancer", "ops")
_DISK_FAIL_BYTES = 256 << 20
_DISK_WARN_BYTES = 2 << 30


@dataclass(frozen=True)
class Finding:
    """What one check found, in one sentence."""

    name: str
    status: Status
    sentence: str


Judgement = tuple[Status, str]


def doctor(config: Config, *, as_json: bool) -> int:
    """Run every check and print one line each, or one JSON object.

    Args:
        config: The settings of the installation.
        as_json: Print `{"sound": bool, "findings": [{"name", "status", "sentence"}]}`.

    Returns:
        The exit status: 1 if a check failed.
    """
    findings = examine(config)
    sound = all(finding.status != "fail" for finding in findings)
    if as_json:
        print(json.dumps({"sound": sound, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(f"{finding.status:<4}  {finding.name:<{width}}  {finding.sentence}")
    return 0 if sound else 1


def examine(config: Config) -> list[Finding]:
    """Run every check of the table, in its order."""
    return [Finding(name, *_judged(check, config)) for name, check in CHECKS.items()]


def _judged(check: Callable[[Config], Judgement], config: Config) -> Judgement:
    try:
        return check(config)
    except (RecollectError, BalancerError, TelemetryError) as error:
        return "fail", f"{str(error).rstrip('.')}."
    except OSError as error:
        return "fail", f"This cannot be examined: {error}."


def _python(_: Config) -> Judgement:
    wanted = importlib.metadata.metadata(_DISTRIBUTION)["Requires-Python"]
    version = ".".join(map(str, sys.version_info[:3]))
    if not satisfies(version, wanted):
        return "fail", f"Python {version} runs, {wanted} is needed."
    return "ok", f"Python {version} at {sys.executable}."


def _packages(_: Config) -> Judgement:
    faults: list[str] = []
    doubts: list[str] = []
    requirements = [parse_requirement(text) for text in importlib.metadata.requires(_DISTRIBUTION) or ()]
    for requirement in requirements:
        complaints = doubts if requirement.optional else faults
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if not requirement.optional:
                faults.append(f"{requirement.name} is missing")
            continue
        if not satisfies(version, requirement.specifiers):
            complaints.append(f"{requirement.name} is {version}, {requirement.specifiers} is needed")
    if faults:
        return "fail", f"{'; '.join(faults + doubts)}: run make setup."
    if doubts:
        return "warn", f"{'; '.join(doubts)}: run make setup."
    return "ok", f"{len(requirements)} requirements hold."


def _names(_: Config) -> Judgement:
    owners = importlib.metadata.packages_distributions()
    root = Path(__file__).resolve().parents[2]
    faults: list[str] = []
    for name in _PACKAGES:
        # An editable installation claims no module at all, so what matters is who else does, and what is imported.
        foreign = sorted(set(owners.get(name, ())) - {_DISTRIBUTION})
        if foreign:
            faults.append(f"{', '.join(foreign)} brings another package named {name}")
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            faults.append(f"{name} cannot be imported as a package")
        elif Path(spec.origin).resolve().parents[1] != root:
            faults.append(f"{name} is imported from {spec.origin}")
    if faults:
        return "fail", f"{'; '.join(faults)}: give Recollect a virtual environment of its own."
    return "ok", f"{', '.join(_PACKAGES)} are ours, from {root}."


def _http_parser(_: Config) -> Judgement:
    from aiohttp import http_parser

    parser = http_parser.HttpRequestParser
    if parser is http_parser.HttpRequestParserPy:
        return (
            "fail",
            "aiohttp has no compiled HTTP parser; install its binary wheel, the slow one differs in what it accepts.",
        )
    return "ok", f"aiohttp uses its compiled parser ({parser.__module__})."


def _redis(config: Config) -> Judgement:
    if config.redis_url is not None:
        return redis_health(config)
    program = str(binaries.find_redis(_balancer().redis_server))
    running = next((row for row in roster.read(config.home) if row.name == "redis" and row.host is not None), None)
    if running is None or running.host is None or not Path(running.host).is_socket():
        return "ok", f"{program}."
    status, sentence = redis_health(replace(config, redis_url=redis_conf.url(Path(running.host))))
    return status, f"{program}. {sentence}"


def _nginx(_: Config) -> Judgement:
    return "ok", f"{binaries.find_nginx(_balancer().nginx)}."


def _home(config: Config) -> Judgement:
    home = config.home
    for name, folder in (("RECOLLECT_HOME", home), ("RECOLLECT_LOGS", config.logs)):
        if (fault := _fault_of(folder)) is not None:
            return "fail", f"{folder} {fault}; name another in {name}."
    if not home.exists():
        return "ok", f"{home} will be made."
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode != 0o700:
        return "warn", f"{home} has mode {mode:04o}, so others may get at what users did: chmod 700 {home}."
    return "ok", f"{home} is writable, mode 0700."


def _fault_of(folder: Path) -> str | None:
    """Return why files cannot be written in a folder, which need not be there yet; None if they can."""
    parent = _existing(folder)
    if parent == folder:
        if not folder.is_dir():
            return "is not a directory"
        return None if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else "cannot be written by this user"
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return None
    return f"does not exist and cannot be made in {parent}"


def _disk(config: Config) -> Judgement:
    free_bytes, where = min((shutil.disk_usage(path).free, path) for path in map(_existing, (config.home, config.logs)))
    sentence = f"{free_bytes / (1 << 30):.1f} GiB free at {where}."
    if free_bytes < _DISK_FAIL_BYTES:
        return "fail", f"Only {sentence}"
    return ("warn" if free_bytes < _DISK_WARN_BYTES else "ok"), sentence


def _port(config: Config) -> Judgement:
    settings = _balancer()
    host, port = settings.host, settings.port
    alive = {row.pid: row.name for row in roster.running_balancers(config.home) if row.pid is not None}
    for row in roster.running_balancers(config.home):
        # It may have been started with --port.
        host, port = row.host or host, row.port or port
    where = address(host, port)
    if alive:
        foreign = foreign_listeners.find(host, port, alive)
        if foreign:
            return "fail", f"{where} is shared with {', '.join(sorted(foreign))}, which takes a part of the clients."
        names = " and ".join(f"{name} (pid {pid})" for pid, name in alive.items())
        return "ok", f"{where} is served by this installation's {names}."
    try:
        ports.require(host, port)
    except PortTaken as error:
        return "fail", f"{error}."
    return "ok", f"{where} is free."


def _keys(config: Config) -> Judgement:
    from service.security import exposure
    from service.security.key_file import KeyFile
    from service.security.keyring import Keyring

    settings = _balancer()
    beyond = [
        f"{name} ({host})"
        for name, host in (("RECOLLECT_BALANCER_HOST", settings.host), ("RECOLLECT_HOST", config.server.host))
        if not exposure.is_loopback(host)
    ]
    keys = KeyFile(config.security_dir).read()
    if keys is None:
        if beyond:
            names = " and ".join(beyond)
            return "warn", f"There are no API keys, so {names} needs --insecure: make a key with recollect keys create."
        return "ok", "There are no API keys; without them only this machine is listened to."
    ring = Keyring(keys)
    valid = ring.valid(time.time())
    if not valid:
        return "warn", f"None of {len(ring)} API keys is valid, so every request is refused: recollect keys create."
    return "ok", f"{valid} of {len(ring)} API keys are valid."


def _key_files(config: Config) -> Judgement:
    config.pseudonymiser()
    if config.watermark_key_file is not None:
        try:
            read_key(config.watermark_key_file, "watermark key")
        except KeyFileError as error:
            return "fail", f"RECOLLECT_WATERMARK_KEY_FILE: {error}."
    ids = "as they are" if config.pseudonym_key_file is None else f"as pseudonyms, by {config.pseudonym_key_file}"
    return "ok", f"Telemetry keeps user ids {ids}."


def _tls(_: Config) -> Judgement:
    settings = _balancer()
    if settings.tls_cert is None or settings.tls_key is None:
        return "ok", "nginx speaks no TLS; RECOLLECT_TLS_CERT and RECOLLECT_TLS_KEY make it."
    for path in (settings.tls_cert, settings.tls_key):
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return "fail", f"{path} is not a regular file."
            path.read_bytes()
        except OSError as error:
            return "fail", f"{path} cannot be read: {error.strerror}."
    try:
        # An empty password, since without one a key that is encrypted would be asked for at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except ssl.SSLError as error:
        said = (error.reason or "").replace("_", " ").lower()
        reason = said or "one of them is not such a PEM file, or is encrypted"
        return "fail", f"{settings.tls_cert} and {settings.tls_key} are no certificate and its key: {reason}."
    return "ok", f"nginx speaks TLS with {settings.tls_cert}."


def _open_files(_: Config) -> Judgement:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if open_files.enough(soft):
        return "ok", f"{_limit_text(soft)} files may be open."
    if open_files.enough(hard):
        return "ok", f"{soft} files may be open; up and balance raise that to {open_files.WANTED}."
    return "fail", f"At most {hard} files may be open, {open_files.WANTED} are needed: have the hard limit raised."


def _settings(_: Config) -> Judgement:
    file = environment.file_of(os.environ, environment.working_directory())
    given = sorted(name for name in environment.paths_by_name() if os.environ.get(name))
    told = (
        f"from {file} and the environment" if file is not None else "from the environment; there is no recollect.toml"
    )
    return "ok", f"{len(given)} are set, {told}."


def _model(config: Config) -> Judgement:
    from service.errors import ModelMissing
    from service.models import active_model

    try:
        model = active_model.load(config.models_dir, config.models.load_timeout_s)
    except ModelMissing:
        # What is active and gone is worse than nothing active.
        if active_model.version(config.models_dir) is not None:
            raise
        return "warn", "No model is active yet; recollect train or recollect up makes one."
    return "ok", f"{model.version}: {len(model.users)} users, {len(model.items)} items, {model.n_factors} factors."


CHECKS: dict[str, Callable[[Config], Judgement]] = {
    "python": _python,
    "packages": _packages,
    "names": _names,
    "http parser": _http_parser,
    "redis": _redis,
    "nginx": _nginx,
    "settings": _settings,
    "state": _home,
    "disk": _disk,
    "port": _port,
    "keys": _keys,
    "key files": _key_files,
    "tls": _tls,
    "open files": _open_files,
    "model": _model,
}


@dataclass(frozen=True)
class Requirement:
    """One line of a distribution's requirements, as far as we write them; optional if an extra brings it."""

    name: str
    specifiers: str
    optional: bool


def parse_requirement(text: str) -> Requirement:
    """Read a requirement such as `redis[hiredis]<9,>=8.1; extra == 'x'` (PEP 508, without URLs)."""
    wanted, _, marker = text.partition(";")
    match = re.match(r"\s*([A-Za-z0-9._-]*[A-Za-z0-9])\s*(?:\[[^]]*\])?\s*(.*)", wanted)
    if match is None:
        raise ValueError(f"not a requirement: {text!r}")
    return Requirement(match[1], match[2].strip().strip("()"), "extra ==" in marker)


def satisfies(version: str, specifiers: str) -> bool:
    """Say whether a version lies within `>=`, `>`, `<`, `<=`, `==` and `!=` bounds; only release numbers count."""
    have = _release(version)
    for specifier in filter(None, specifiers.replace(" ", "").split(",")):
        operator = next(operator for operator in _COMPARISONS if specifier.startswith(operator))
        bound = _release(specifier.removeprefix(operator))
        length = max(len(have), len(bound))
        if not _COMPARISONS[operator](_padded(have, length), _padded(bound, length)):
            return False
    return True


_Release = tuple[int, ...]
# Two-character operators first: `>=` also starts with `>`.
_COMPARISONS: dict[str, Callable[[_Release, _Release], bool]] = {
    ">=": lambda have, bound: have >= bound,
    "<=": lambda have, bound: have <= bound,
    "==": lambda have, bound: have == bound,
    "!=": lambda have, bound: have != bound,
    ">": lambda have, bound: have > bound,
    "<": lambda have, bound: have < bound,
}


def _release(version: str) -> _Release:
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def _padded(release: _Release, length: int) -> _Release:
    return release + (0,) * (length - len(release))


def _text(version: tuple[int, ...]) -> str:
    return binaries.version_text(version)


def _balancer() -> BalancerSettings:
    return read(BalancerSettings, os.environ)


def _existing(path: Path) -> Path:
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def _limit_text(limit: int) -> str:
    return "Any number of" if limit == resource.RLIM_INFINITY else str(limit)
