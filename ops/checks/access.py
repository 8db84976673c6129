"""Checks of what clients reach: the port, API keys, TLS, and the limit of open files."""

import os
import resource
import ssl
import stat
import time

from loadbalancer import ports, roster
from loadbalancer.errors import PortTaken
from loadbalancer.settings import BalancerSettings
from loadbalancer.supervision import foreign_listeners
from loadbalancer.topology import address
from ops import key_checks
from ops.checks import open_files
from ops.checks.finding import Finding
from service.config import Config
from service.declared_settings import read


def port(config: Config) -> Finding:
    """Check that the balancer's port is free, or served by this installation alone."""
    settings = read(BalancerSettings, os.environ)
    host, number = settings.host, settings.port
    rows = roster.running_balancers(config.home)
    alive = {row.pid: row.name for row in rows if row.pid is not None}
    for row in rows:
        # It may have been started with --port.
        host, number = row.host or host, row.port or number
    where = address(host, number)
    if alive:
        others = foreign_listeners.find(host, number, alive)
        if others:
            return "fail", f"{where} is shared with {', '.join(sorted(others))}, which takes a part of the clients."
        names = " and ".join(f"{name} (pid {pid})" for pid, name in alive.items())
        return "ok", f"{where} is served by this installation's {names}."
    try:
        ports.require_free(host, number)
    except PortTaken as error:
        return "fail", f"{str(error).rstrip('.')}."
    return "ok", f"{where} is free."


def keys(config: Config) -> Finding:
    """Check that there are API keys where other machines reach the service."""
    from service.security import exposure
    from service.security.key_file import KeyFile
    from service.security.keyring import Keyring

    settings = read(BalancerSettings, os.environ)
    hosts = {name: host for name, (host, _) in key_checks.listeners(settings).items()}
    hosts["RECOLLECT_HOST"] = config.server.host
    if key_checks.are_elsewhere(settings):
        return "ok", "The replicas of other machines check the API keys; nginx alone has none."
    exposed = " and ".join(f"{name} ({host})" for name, host in hosts.items() if not exposure.is_loopback(host))
    present = KeyFile.of(config).read()
    if present is None:
        if exposed:
            return "warn", f"There are no API keys, so {exposed} needs --insecure: run recollect keys create."
        return "ok", "There are no API keys, so the service listens on this machine only."
    keyring = Keyring(present)
    n_valid = keyring.count_valid(time.time())
    if not n_valid:
        return "warn", f"None of {len(keyring)} API keys is valid, so every request is refused: recollect keys create."
    return "ok", f"{n_valid} of {len(keyring)} API keys are valid."


def tls(_: Config) -> Finding:
    """Load the certificate and key as nginx does."""
    cert, key = (settings := read(BalancerSettings, os.environ)).tls_cert, settings.tls_key
    if cert is None or key is None:
        return "ok", "nginx serves plain HTTP; RECOLLECT_TLS_CERT and RECOLLECT_TLS_KEY turn TLS on."
    for path in (cert, key):
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return "fail", f"{path} is not a regular file."
            path.read_bytes()
        except OSError as error:
            return "fail", f"{path} cannot be read: {error.strerror}."
    try:
        # With no password OpenSSL would ask for that of an encrypted key at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        reason = (error.reason or "").replace("_", " ").lower() or "one is not a PEM file of its kind, or is encrypted"
        return "fail", f"{cert} and {key} are not a certificate and its key: {reason}."
    return "ok", f"nginx serves TLS with {cert}."


def file_limit(_: Config, limits: tuple[int, int] | None = None) -> Finding:
    """Compare the limits of open files, soft and hard, with the number wanted."""
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    if open_files.is_enough(soft):
        return "ok", f"{'Any number of' if soft == resource.RLIM_INFINITY else soft} files may be open."
    if open_files.is_enough(hard):
        return "ok", f"{soft} files may be open; up and balance raise that to {open_files.WANTED}."
    return "fail", f"At most {hard} files may be open, {open_files.WANTED} are needed: have the hard limit raised."
