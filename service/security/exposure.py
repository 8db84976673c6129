"""The rule that a listener beyond loopback needs API keys."""

import ipaddress

from service.config import Config
from service.errors import UsageError
from service.security.key_file import KeyFile
from service.security.keyring import Keyring


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on an address; a name other than localhost counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_keys(config: Config, host: str, port: int, *, insecure: bool) -> Keyring | None:
    """Return the keys that a listener checks, and refuse a listener beyond loopback without keys.

    Returns:
        The keys; None if no key was ever made, and then every request is admitted.

    Raises:
        UsageError: Keys are required, and there are none.
        KeysRefused: The key file cannot be used.
    """
    keys = KeyFile.of(config).read()
    if keys is not None:
        return Keyring(keys)
    make = "make one with `recollect keys create --scope recommend,events`"
    if config.keys_required and not insecure:
        raise UsageError(f"RECOLLECT_KEYS_REQUIRED is set and there are no API keys in {config.home}: {make}.")
    if not insecure and not is_loopback(host):
        raise UsageError(
            f"{_address(host, port)} can be reached from other machines, and there are no API keys in {config.home}:"
            f" {make}, or start with --insecure, which lets every client read any list, post events for any user and"
            " erase any user."
        )
    return None


def insecure_warning(host: str, port: int) -> str:
    """Return the warning about a listener without keys."""
    return (
        f"Insecure: {_address(host, port)} requires no API keys; every client can read any list, post events for any"
        " user and erase any user."
    )


def _address(host: str, port: int) -> str:
    """Return host:port, with an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
