"""nginx's configuration as a value: `render` is pure.

Invariants of the rendered file, measured in docs/decisions/two-nginx.md:

- A request that reached no replica, or whose replica died, is sent to another one, POST included, with the same
  Idempotency-Key. A replica's own 5xx or 429 is an answer and is never retried.
- While one replica of any machine is alive, nginx has a live upstream. While none is, requests for the popular list
  get the static one.
- /readyz is answered within a second.
- Routes match the target as the client wrote it, and the replica gets it unchanged (routes.py).
- Each replica has a bounded number of open requests; excess requests are refused at once.
- nginx writes only to the installation's own run and log folders.
- The access log holds the route of a request and nothing that the client wrote, hence no user id.
- nginx's own errors are application/problem+json (RFC 9457), like the service's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from loadbalancer.errors import BadSetting
from loadbalancer.nginx import client_rules, problems, routes
from loadbalancer.settings import BalancerSettings
from loadbalancer.topology import Balancer, RemoteReplica, Replica, Topology, address, reachable

# Directives that only some versions or builds have (`configuration_files.supported_directives`), with their value, or
# None for a folder of their own.
OPTIONAL_DIRECTIVES = {
    "max_headers": "64",
    # Keeps idle connections of a stopping worker open for a moment, so that no request meets a closing one.
    "keepalive_min_timeout": "1s",
    "fastcgi_temp_path": None,
    "uwsgi_temp_path": None,
    "scgi_temp_path": None,
    # On with TLS.
    "http2": "off",
    # Without it a reload keeps a certificate whose file has the same inode and second of change.
    "ssl_object_cache_inheritable": "off",
}
# Those that belong outside of every block; all others belong in the block http.
OUTSIDE_HTTP = ("ssl_object_cache_inheritable",)

_MAX_OPEN_FILES = 20_000
_MAX_CONNECTIONS = 4096
# The checks of most balancers and orchestrators end after a second. A replica is asked within a budget and then has its
# timeout, first where replicas are left out for a while, and then where none is, for the reason. A connection takes no
# more: it is made within a round trip, or the kernel repeats its first packet after a second.
#
# Two attempts and two more, because a late replica is not a dead one. At five times the peak beside up to 30 busy
# processes on two cores, 99 % of the replicas' own answers took at most 55 to 229 ms; of 3,331, five took more than
# 200 ms and one more than 300 ms. One silent replica of this machine leaves an attempt for another one; after two the
# next check asks others.
READY_BUDGET_MS = 310
READY_TIMEOUT_MS = 300
UNREADY_BUDGET_MS = 160
UNREADY_TIMEOUT_MS = 150


@dataclass(frozen=True)
class NginxHost:
    """The folders, features and limits of this machine that the rendered file depends on.

    Args:
        run_dir: This nginx's own folder for its pid and temporary files.
        logs: The folder of its two logs.
        models: The folder with popular.txt and popular.json.
        features: Those of OPTIONAL_DIRECTIVES that this nginx has.
        user: User and group of the workers; None unless the master starts as root.
        open_files: The limit of open files of a process.
    """

    run_dir: Path
    logs: Path
    models: Path
    features: frozenset[str]
    user: tuple[str, str] | None
    open_files: int


# In place of no server at all, which nginx refuses: a port of this machine on which nothing listens (tcpmux, RFC 1078).
_UNANSWERED = "127.0.0.1:1"

# Each replica is in an upstream twice, and a backup is used when all others are at their bound.
_ENTRIES_PER_REPLICA = 2


def render(topology: Topology, balancer: Balancer, settings: BalancerSettings, host: NginxHost) -> str:
    """Return the whole configuration of one nginx master; two or more balancers in the topology share the port.

    Raises:
        BadSetting: A path has a character that the file cannot express.
    """
    open_files = min(host.open_files, _MAX_OPEN_FILES)
    values = {
        "USER": "" if host.user is None else "user " + " ".join(map(_quoted, host.user)) + ";",
        "WORKERS": str(settings.workers),
        "OPEN_FILES": str(open_files),
        "CONNECTIONS": str(min(open_files, _MAX_CONNECTIONS)),
        "PID": _quoted(host.run_dir / "nginx.pid"),
        "BODY_TEMP": _quoted(host.run_dir / "body"),
        "PROXY_TEMP": _quoted(host.run_dir / "proxy"),
        "ERROR_LOG": _quoted(host.logs / f"{balancer.name}.error.log"),
        "ACCESS_LOG": _quoted(host.logs / f"{balancer.name}.access.log"),
        "OPTIONAL": _optional(host),
        "OUTSIDE_HTTP": "".join(
            f"{name} {OPTIONAL_DIRECTIVES[name]};\n" for name in OUTSIDE_HTTP if name in host.features
        ),
        "CLIENT_TIMEOUT_S": str(settings.client_timeout_s),
        "SEND_TIMEOUT_S": str(2 * settings.client_timeout_s),
        "REAL_ADDRESS": client_rules.real_address(settings),
        "LIMIT_ZONES": client_rules.zones(settings),
        "LIMITS": client_rules.limits(settings),
        "CLIENT_MAPS": client_rules.maps(settings),
        "SSL": client_rules.listen_options(settings, http2_directive="http2" in host.features),
        "TLS": client_rules.tls(settings, _quoted, http2_directive="http2" in host.features),
        "HEADERS": "\n".join("    " + line for line in client_rules.headers(settings)),
        "HEALTH_HEADERS": "\n".join("      " + line for line in client_rules.headers(settings)),
        "CLIENT_LOCATIONS": client_rules.locations(settings),
        "MAPS": routes.maps(),
        "UPSTREAMS": "\n".join(_upstream(one, topology, settings) for one in _upstreams(settings)),
        "ITEM_LOCATIONS": routes.item_locations(settings),
        "LISTEN": address(balancer.host, balancer.port),
        "ADMIN_LISTEN": address("127.0.0.1", balancer.admin_port),
        # Only with several masters: with it, any process of the same user may listen too and gets a share of the
        # clients. The kernel cannot forbid that; loadbalancer/supervision/foreign_listeners.py detects it.
        "REUSEPORT": " reuseport" if len(topology.balancers) > 1 else "",
        "TRIES": str(max(5, len(topology.replicas) + len(topology.candidates) + len(topology.remote) + 2)),
        "EVENTS_TIMEOUT_MS": str(settings.events_timeout_ms),
        "EVENTS_BUDGET_MS": str(settings.events_budget_ms),
        "OTHER_TIMEOUT_MS": str(settings.other_timeout_ms),
        "OTHER_BUDGET_MS": str(2 * settings.other_timeout_ms),
        "READY_TIMEOUT_MS": str(READY_TIMEOUT_MS),
        "READY_BUDGET_MS": str(READY_BUDGET_MS),
        "UNREADY_TIMEOUT_MS": str(UNREADY_TIMEOUT_MS),
        "UNREADY_BUDGET_MS": str(UNREADY_BUDGET_MS),
        "ERROR_PAGES": "\n".join("    " + line for line in _pages()),
        "READY_ERROR_PAGES": "\n".join(
            "      " + line for line in problems.error_pages(problems.STATUSES - {502, 504})
        ),
        "CHOICES": routes.choices(settings),
        "LISTS": routes.lists(settings, _quoted(host.models)),
        "PROBLEMS": problems.locations(client_rules.headers(settings)),
    }
    text = re.sub(r"@([A-Z_]+)@", lambda match: values[match.group(1)], _template())
    # Empty blocks leave no blank lines.
    return re.sub(r"\{\n\s*\n", "{\n", re.sub(r"\n\s*\n(\s*\n)+", "\n\n", text))


@cache
def _template() -> str:
    return Path(__file__).with_name("nginx.conf.tmpl").read_text(encoding="utf-8")


def _quoted(value: Path | str) -> str:
    text = str(value)
    # nginx expands variables between quotes too and cannot express a plain dollar.
    if "$" in text or any(ord(character) < 32 for character in text):
        raise BadSetting(f"nginx.conf cannot hold a path with a dollar sign or a control character: {text!r}.")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _pages() -> list[str]:
    return [*problems.error_pages(), problems.limit_page(), problems.plain_page()]


def _optional(host: NginxHost) -> str:
    lines = []
    for name, value in OPTIONAL_DIRECTIVES.items():
        if name in host.features and name not in ("http2", *OUTSIDE_HTTP):
            folder = _quoted(host.run_dir / name.removesuffix("_temp_path"))
            lines.append(f"  {name} {value or folder};")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Upstream:
    """A name for replicas.

    Args:
        name: The name.
        bound: The requests that each nginx has open at one of them; None for no bound.
        finds_candidates: Whether they are those that find candidates.
        answers_checks: Whether the requests are checks of readiness, which come alone and end after a second or two.
        never_ejects: Whether each request may reach every replica, whatever it answered before.
    """

    name: str
    bound: int | None
    finds_candidates: bool = False
    answers_checks: bool = False
    never_ejects: bool = False


def _upstreams(settings: BalancerSettings) -> list[_Upstream]:
    bounds = {"lists": settings.list_concurrency, "feedback": settings.feedback_concurrency}
    found = [
        *(_Upstream(f"busy.{kind}", bound) for kind, bound in bounds.items()),
        _Upstream("health", None, answers_checks=True),
        _Upstream("unready", None, never_ejects=True),
    ]
    if settings.candidates:
        found += [_Upstream(f"items.{kind}", bound, finds_candidates=True) for kind, bound in bounds.items()]
    return found


def _upstream(upstream: _Upstream, topology: Topology, settings: BalancerSettings) -> str:
    each = "" if upstream.bound is None else f" max_conns={-(-upstream.bound // _ENTRIES_PER_REPLICA)}"
    making: tuple[Replica | RemoteReplica, ...] = (*topology.replicas, *topology.remote)
    first = topology.candidates if upstream.finds_candidates else making
    ejection = "max_fails=3 fail_timeout=1s"
    if upstream.answers_checks:
        # A check must not wait for a dead machine: those of this one are asked first, and one that fails is left out
        # of the next checks, of which there is one each second or fewer. One that was only late is asked all the same
        # where no other one answers, as a backup.
        first = topology.replicas or topology.remote
        ejection = "max_fails=1 fail_timeout=5s"
    # Those that make the lists have the items too, and serve them while none of the others answers.
    last = (*topology.candidates, *making) if upstream.finds_candidates else making
    if not last:
        return f"  upstream {upstream.name} {{\n    zone {upstream.name} 256k;\n    server {_UNANSWERED};\n  }}"
    if upstream.never_ejects:
        servers = _servers(last, f"max_fails=0{each}")
    else:
        servers = f"""\
{_servers(first, f"{ejection}{each}")}
    # The same servers again, never ejected: while one replica is alive, there is a live upstream.
{_servers(last, f"max_fails=0{each} backup")}"""
    return f"""\
  upstream {upstream.name} {{
    zone {upstream.name} 256k;
    least_conn;
{servers}
    # nginx, not the replica, closes idle connections, so that no request meets a closing one.
    keepalive 64;
    keepalive_timeout {settings.upstream_keepalive_s}s;
    keepalive_requests 10000;
  }}"""


def _servers(replicas: Sequence[Replica | RemoteReplica], options: str) -> str:
    return "\n".join(f"    server {address(reachable(replica.host), replica.port)} {options};" for replica in replicas)
