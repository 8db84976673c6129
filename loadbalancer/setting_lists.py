"""Settings that are lists: proxies, hosts, origins, replicas; as words that need no quotes in nginx's configuration."""

import ipaddress
import re

from loadbalancer.errors import BadSetting
from loadbalancer.topology import RemoteReplica

# Host names with underscores exist; a wildcard stands for all names below a domain.
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
ANY_ORIGIN = "*"
# Browsers leave these out.
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def proxies(text: str | None) -> tuple[str, ...]:
    """Return the addresses and networks of RECOLLECT_TRUSTED_PROXIES.

    Raises:
        BadSetting: One is neither.
    """
    found = []
    for word in _words(text):
        try:
            found.append(str(ipaddress.ip_network(word, strict=False)))
        except ValueError:
            raise BadSetting(f"RECOLLECT_TRUSTED_PROXIES: {word!r} is neither an IP address nor a network.") from None
    return tuple(found)


def hosts(text: str | None) -> tuple[str, ...]:
    """Return the names of RECOLLECT_HOSTS, in lower case and without ports, as nginx compares them.

    Raises:
        BadSetting: One is not a host name.
    """
    found = tuple(word.lower() for word in _words(text))
    for word in found:
        if not _HOST.fullmatch(word):
            raise BadSetting(f"RECOLLECT_HOSTS: {word!r} is not a host name, such as shop.example or *.shop.example.")
    return found


def origins(text: str | None) -> tuple[str, ...]:
    """Return the origins of RECOLLECT_CORS_ORIGINS, as browsers write them (RFC 6454 section 6.1).

    Raises:
        BadSetting: One is not an origin, or `*` is not alone.
    """
    found = tuple(_without_default_port(word.lower().rstrip("/")) for word in _words(text))
    if found == (ANY_ORIGIN,):
        return found
    for word in found:
        if not _ORIGIN.fullmatch(word):
            raise BadSetting(
                f"RECOLLECT_CORS_ORIGINS: {word!r} is not an origin, such as https://shop.example or"
                " http://localhost:3000; * alone stands for all."
            )
    return found


def remote_replicas(text: str | None) -> tuple[RemoteReplica, ...]:
    """Return the addresses of RECOLLECT_REMOTE_REPLICAS; their hosts are IP addresses or names.

    Raises:
        BadSetting: One is not HOST:PORT.
    """
    found = []
    for word in _words(text):
        host, _, port = word.rpartition(":")
        known = _HOST.fullmatch(host.lower()) is not None and "*" not in host
        if not known or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise BadSetting(
                f"RECOLLECT_REMOTE_REPLICAS: {word!r} is not HOST:PORT, such as 192.0.2.7:8081 or a.example:8081."
            )
        found.append(RemoteReplica(host.strip("[]"), int(port)))
    return tuple(found)


def _without_default_port(origin: str) -> str:
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition("://")[0], ""))


def _words(text: str | None) -> list[str]:
    return [word for word in re.split(r"[,\s]+", text or "") if word]
