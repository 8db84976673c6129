"""Checks of the interpreter, the installed distributions, and the programs that Recollect starts."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from loadbalancer import binaries, redis_conf, roster
from loadbalancer.settings import BalancerSettings
from ops.checks.finding import Finding
from ops.checks.redis_health import redis_health
from service.config import Config
from service.declared_settings import read

_DISTRIBUTION = "recollect"
_PACKAGES = ("service", "telemetry", "loadbalancer", "ops")


def python(_: Config) -> Finding:
    """Compare the interpreter with Requires-Python."""
    wanted = importlib.metadata.metadata(_DISTRIBUTION)["Requires-Python"]
    version = platform.python_version()
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        return "fail", f"Python {version} runs, {wanted} is needed."
    return "ok", f"Python {version} at {sys.executable}."


def packages(_: Config, requirements: Iterable[str] | None = None) -> Finding:
    """Compare the installed distributions with the requirements, those of extras only where they are installed."""
    texts = list(requirements or importlib.metadata.requires(_DISTRIBUTION) or ())
    faults: list[str] = []
    doubts: list[str] = []
    for requirement in map(Requirement, texts):
        is_needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if is_needed:
                faults.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            complaint = f"{requirement.name} is {version}, {requirement.specifier} is needed"
            (faults if is_needed else doubts).append(complaint)
    if faults or doubts:
        return ("fail" if faults else "warn"), f"{'; '.join(faults + doubts)}: run make setup."
    return "ok", f"{len(texts)} requirements hold."


def names(_: Config) -> Finding:
    """Check that no other distribution brings a package with one of our import names."""
    owners = importlib.metadata.packages_distributions()
    root = Path(__file__).resolve().parents[2]
    faults: list[str] = []
    for name in _PACKAGES:
        # An editable installation claims no module, so only other owners and the import path count.
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
    return "ok", f"{', '.join(_PACKAGES)} are imported from {root}."


def http_parser(_: Config) -> Finding:
    """Check that aiohttp has its compiled parser."""
    from aiohttp import http_parser as parsers

    parser = parsers.HttpRequestParser
    if parser is parsers.HttpRequestParserPy:
        sentence = "aiohttp has no compiled HTTP parser, and the slow one accepts other requests: install its wheel."
        return "fail", sentence
    return "ok", f"aiohttp uses its compiled parser ({parser.__module__})."


def redis(config: Config) -> Finding:
    """Check the configured Redis; without one, the program, and the Redis of a running installation."""
    if config.redis_url is not None:
        return redis_health(config)
    program = str(binaries.find_redis(read(BalancerSettings, os.environ).redis_server))
    running = next((row for row in roster.read(config.home) if row.name == "redis" and row.host is not None), None)
    if running is None or running.host is None or not Path(running.host).is_socket():
        return "ok", f"{program}."
    status, sentence = redis_health(replace(config, redis_url=redis_conf.url(Path(running.host))))
    return status, f"{program}. {sentence}"


def nginx(_: Config) -> Finding:
    """Check that there is an nginx to start."""
    return "ok", f"{binaries.find_nginx(read(BalancerSettings, os.environ).nginx)}."
