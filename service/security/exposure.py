"""Whether an address can be reached from other machines, and what has to be there before something listens on it."""

import ipaddress

from service.config import Config
from service.errors import UsageError
from service.security.key_file import KeyFile
from service.security.keyring import Keyring


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on an address; a name other than localhost might be anything."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_keys(config: Config, host: str, port: int, *, insecure: bool) -> Keyring | None:
    """Return the keys that a listener checks, and refuse to listen beyond loopback without any.

    Args:
        config: Every setting.
        host: Where to listen.
        port: Where to listen.
        insecure: Listen anywhere, with keys or without.

    Returns:
        The keys; None where none was ever made, so that every request is let in.

    Raises:
        UsageError: There must be keys, and there are none.
        KeysRefused: The key file cannot be used.
    """
    keys = KeyFile(config.security_dir).read()
    if keys is not None:
        return Keyring(keys)
    make = "make one with `recollect keys create --scope recommend,events`"
    if config.keys_required and not insecure:
        raise UsageError(f"RECOLLECT_KEYS_REQUIRED is set and there are no API keys in {config.home}: {make}")
    if not insecure and not is_loopback(host):
        raise UsageError(
            f"{_address(host, port)} can be reached from other machines, and there are no API keys in {config.home}:"
            f" {make}, or start with --insecure, which lets everyone who reaches the port read any list, post events"
            " for any user and erase any user"
        )
    return None


def warning(host: str, port: int) -> str:
    """Say what `--insecure` does, for who starts with it and without keys."""
    return (
        f"insecure: no API keys are asked for on {_address(host, port)}; everyone who reaches it can read any list,"
        " post events for any user and erase any user"
    )


def _address(host: str, port: int) -> str:
    """Return host:port, with an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
