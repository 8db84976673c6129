"""nginx's configuration as a value: `render` returns text and touches nothing.

Invariants of the rendered file, each measured (docs/operations.md):

- A request that reached no replica, or whose replica died, is sent to another one, POST included, with the same
  Idempotency-Key; a replica's own 5xx or 429 is an answer and is never repeated elsewhere.
- While one replica lives nginx has a live upstream; while none does, lists are answered from the static popular list.
- Every path nginx writes is under the installation's own run and log folders.
- The access log holds the route of a request and nothing that its client wrote, so that no user id is in it.
- Every error that nginx itself answers is application/problem+json (RFC 9457), like the service's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from loadbalancer.errors import BadSetting
from loadbalancer.topology import address

if TYPE_CHECKING:
    from loadbalancer.settings import BalancerSettings
    from loadbalancer.topology import Balancer, Topology

# Directives that only some versions or builds have; `nginx_files.probe` says which.
OPTIONAL_DIRECTIVES = ("max_headers", "fastcgi_temp_path", "uwsgi_temp_path", "scgi_temp_path")

_MOST_OPEN_FILES = 20_000
_MOST_CONNECTIONS = 4096


@dataclass(frozen=True)
class Surroundings:
    """What the rendered file depends on besides topology and settings.

    Args:
        run_dir: this nginx's own folder for its pid and temporary files.
        logs: the folder of its two logs.
        models: the folder with popular.txt and popular.json.
        features: those of OPTIONAL_DIRECTIVES that this nginx knows.
        user: user and group of the workers; None unless the master starts as root.
        open_files: the most files a process may have open here.
    """

    run_dir: Path
    logs: Path
    models: Path
    features: frozenset[str]
    user: tuple[str, str] | None
    open_files: int


@dataclass(frozen=True)
class _Problem:
    """An error that nginx answers itself; the types are the service's."""

    status: int
    name: str
    title: str
    detail: str


_PROBLEMS = (
    _Problem(400, "malformed", "Malformed request", "This is not an HTTP request as we read it."),
    _Problem(404, "not-found", "Not found", "There is no such route."),
    _Problem(405, "method-not-allowed", "Method not allowed", "This method is not served here."),
    _Problem(413, "too-large", "Request too large", "A request body may have 64 KiB at most."),
    _Problem(414, "uri-too-long", "URI too long", "The request line may have 8 KiB at most."),
    _Problem(415, "unsupported-body", "Unsupported body", "Send the body without Content-Encoding."),
    _Problem(429, "too-many-requests", "Too many requests", "This client is over its share; try again later."),
    _Problem(500, "internal", "Internal error", "The balancer failed."),
    _Problem(501, "not-implemented", "Not implemented", "This transfer encoding is not supported."),
    _Problem(502, "unavailable", "Temporarily unavailable", "No replica answers; try again."),
    _Problem(503, "unavailable", "Temporarily unavailable", "No replica answers and there is no list to fall back to."),
    _Problem(504, "unavailable", "Temporarily unavailable", "No replica answered in time; try again."),
    _Problem(505, "http-version", "HTTP version not supported", "Use HTTP/1.1."),
)
_RETRY_LATER = {429, 502, 503, 504}
# nginx may meet these before it has a path, and then cannot go to a named location.
_WITHOUT_PATH = {400, 414, 505}
# Its own number for too large headers, which it answers as 400.
_HEADERS_TOO_LARGE = 494

# Lists, and the static file that stands in when no replica answers.
_LISTS = (
    ("^~ /recommend/", "popular.txt"),
    ("= /v1/recommendations", "popular.json"),
    ("^~ /v1/recommendations/", "popular.json"),
    ("= /v1/popular", "popular.json"),
)
_STATIC_TYPES = {"popular.txt": "text/plain; charset=utf-8", "popular.json": "application/json"}
_OTHERS = ("^~ /v1/items/", "^~ /v1/users/", "= /v1/model", "= /openapi.json", "= /docs")


def render(topology: Topology, balancer: Balancer, settings: BalancerSettings, here: Surroundings) -> str:
    """Return the whole configuration of one nginx master.

    Args:
        topology: every replica, and every balancer: two or more share the port.
        balancer: the one to render.
        settings: timeouts and limits.
        here: folders, features and limits of this machine.

    Raises:
        BadSetting: a path has a character that nginx cannot be told.
    """
    open_files = min(here.open_files, _MOST_OPEN_FILES)
    values = {
        "USER": "" if here.user is None else "user " + " ".join(map(_quoted, here.user)) + ";",
        "WORKERS": str(settings.workers),
        "OPEN_FILES": str(open_files),
        "CONNECTIONS": str(min(open_files, _MOST_CONNECTIONS)),
        "PID": _quoted(here.run_dir / "nginx.pid"),
        "BODY_TEMP": _quoted(here.run_dir / "body"),
        "PROXY_TEMP": _quoted(here.run_dir / "proxy"),
        "ERROR_LOG": _quoted(here.logs / f"{balancer.name}.error.log"),
        "ACCESS_LOG": _quoted(here.logs / f"{balancer.name}.access.log"),
        "OPTIONAL": _optional(here),
        "LIMIT_ZONES": _limit_zones(settings),
        "LIMITS": _limits(settings),
        "SERVERS": _servers(topology, "max_fails=3 fail_timeout=1s"),
        "BACKUPS": _servers(topology, "max_fails=0 backup"),
        "UPSTREAM_KEEPALIVE_S": str(settings.upstream_keepalive_s),
        "LISTEN": address(balancer.host, balancer.port),
        "ADMIN_LISTEN": address("127.0.0.1", balancer.admin_port),
        # Only among several masters: with it, any process of the same user may listen too and is given its share of
        # the clients, which the kernel leaves no way to forbid. loadbalancer/listeners.py finds such a one.
        "REUSEPORT": " reuseport" if len(topology.balancers) > 1 else "",
        "TRIES": str(max(5, len(topology.replicas) + 2)),
        "EVENTS_TIMEOUT_MS": str(settings.events_timeout_ms),
        "EVENTS_BUDGET_MS": str(settings.events_budget_ms),
        "OTHER_TIMEOUT_MS": str(settings.other_timeout_ms),
        "OTHER_BUDGET_MS": str(2 * settings.other_timeout_ms),
        "ERROR_PAGES": _error_pages({problem.status for problem in _PROBLEMS}, 4),
        "LISTS": "\n".join(_list_location(match, static, settings) for match, static in _LISTS),
        "STATIC": "\n".join(_static_location(here.models, static) for static in _STATIC_TYPES),
        "OTHERS": "\n".join(
            f"    location {match} {{ {_route(match)} proxy_pass http://replicas; }}" for match in _OTHERS
        ),
        "PROBLEMS": "\n".join(map(_problem_location, _PROBLEMS)),
    }
    text = re.sub(r"@([A-Z_]+)@", lambda match: values[match.group(1)], _template())
    # A block that came out empty leaves no hole.
    return re.sub(r"\n\s*\n(\s*\n)+", "\n\n", text)


@cache
def _template() -> str:
    return Path(__file__).with_name("nginx.conf.tmpl").read_text(encoding="utf-8")


def _quoted(value: Path | str) -> str:
    text = str(value)
    # nginx expands variables even between quotes and has no way to write a plain dollar.
    if "$" in text or any(ord(character) < 32 for character in text):
        raise BadSetting(f"nginx cannot be given a path with a dollar sign or a control character: {text!r}")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _optional(here: Surroundings) -> str:
    lines = []
    for name in OPTIONAL_DIRECTIVES:
        if name in here.features:
            value = "64" if name == "max_headers" else _quoted(here.run_dir / name.removesuffix("_temp_path"))
            lines.append(f"  {name} {value};")
    return "\n".join(lines)


def _limit_zones(settings: BalancerSettings) -> str:
    if settings.loopback_only:
        return ""
    return (
        "  limit_conn_zone $binary_remote_addr zone=connections:2m;\n"
        "  limit_conn_status 429;\n"
        f"  limit_req_zone $binary_remote_addr zone=requests:2m rate={settings.client_requests_per_s}r/s;\n"
        "  limit_req_status 429;\n"
    )


def _limits(settings: BalancerSettings) -> str:
    if settings.loopback_only:
        return ""
    burst = f" burst={settings.client_burst}" if settings.client_burst else ""
    nodelay = " nodelay" if settings.client_burst else ""
    return f"    limit_conn connections {settings.client_connections};\n    limit_req zone=requests{burst}{nodelay};"


def _servers(topology: Topology, options: str) -> str:
    return "\n".join(f"    server {address(replica.host, replica.port)} {options};" for replica in topology.replicas)


def _error_pages(statuses: set[int], indent: int) -> str:
    lines = []
    for status in sorted(statuses):
        if status in _WITHOUT_PATH:
            also = f" {_HEADERS_TOO_LARGE}" if status == 400 else ""
            lines.append(f"error_page {status}{also} /_problem/{status};")
        else:
            lines.append(f"error_page {status} @problem_{status};")
    return "\n".join(" " * indent + line for line in lines)


def _route(match: str) -> str:
    """Return the directive that names a location in the access log, by the part of the path that is ours."""
    return f'set $route "{match.rsplit(maxsplit=1)[-1]}";'


def _list_location(match: str, static: str, settings: BalancerSettings) -> str:
    # error_page lines of a location replace the server's, so all of them are said again.
    others = {problem.status for problem in _PROBLEMS} - {502, 504}
    return f"""\
    location {match} {{
      {_route(match)}
      proxy_pass http://replicas;
      proxy_read_timeout {settings.list_timeout_ms}ms;
      proxy_next_upstream_timeout {settings.list_budget_ms}ms;
{_error_pages(others, 6)}
      error_page 502 504 =200 /_static/{static};
    }}"""


def _static_location(models: Path, static: str) -> str:
    return f"""\
    location = /_static/{static} {{
      internal;
      root {_quoted(models)};
      try_files /{static} =503;
      types {{ }}
      default_type "{_STATIC_TYPES[static]}";
      add_header X-Degraded static;
      add_header Cache-Control no-store;
      # The conditions and ranges of the request were meant for another answer.
      if_modified_since off;
      etag off;
      max_ranges 0;
    }}"""


def _problem_location(problem: _Problem) -> str:
    body = json.dumps(
        {
            "type": f"/problems/{problem.name}",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
        }
    )
    if problem.status in _WITHOUT_PATH:
        start = f"location = /_problem/{problem.status} {{ internal;"
    else:
        start = f"location @problem_{problem.status} {{"
    retry = " add_header Retry-After 1 always;" if problem.status in _RETRY_LATER else ""
    return f"    {start} default_type application/problem+json;{retry}\n      return {problem.status} '{body}';\n    }}"
