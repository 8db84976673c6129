"""The routes of nginx: which named location serves a request target.

Invariant: routes match the raw target and never nginx's normalised path, in which the percent-encoded user
`a/../../healthz` would be another route. nginx chooses locations by the normalised path, so one location takes every
request, and the raw target selects the named location. The regular expressions are prefixes without captures, in `if`
and not in `map` (CVE-2026-42533).
"""

from dataclasses import dataclass

from loadbalancer.nginx import client_rules
from loadbalancer.nginx.problems import error_pages, limit_page
from loadbalancer.settings import BalancerSettings


@dataclass(frozen=True)
class NginxRoute:
    """A route, or all routes below a prefix that ends with a slash.

    Args:
        path: The path or prefix, also its name in the access log.
        location: The named location that serves it.
        separate: The named location if other replicas find candidates; None for the same one.
    """

    path: str
    location: str
    separate: str | None = None

    @property
    def pattern(self) -> str:
        """The regular expression that matches its raw targets."""
        escaped = self.path.replace(".", "\\.")
        return f"^{escaped}" if self.path.endswith("/") else f"^{escaped}(?:\\?|$)"


ROUTES = (
    NginxRoute("/recommend/", "list_text"),
    NginxRoute("/recommend", "list_text"),
    NginxRoute("/v1/recommendations/", "list_json"),
    NginxRoute("/v1/recommendations/batch", "model"),
    NginxRoute("/v1/recommendations", "model"),
    NginxRoute("/v1/popular", "list_json"),
    NginxRoute("/v1/events", "events"),
    NginxRoute("/v1/candidates", "model", "items"),
    NginxRoute("/v1/items/", "model", "items"),
    NginxRoute("/v1/items", "events", "item_changes"),
    NginxRoute("/v1/users/", "others"),
    NginxRoute("/v1/users", "others"),
    NginxRoute("/v1/model", "model"),
    NginxRoute("/openapi.json", "others"),
    NginxRoute("/docs", "others"),
    NginxRoute("/healthz", "health"),
    NginxRoute("/readyz", "ready"),
)

_HEALTH = ("health", "ready")

# The static file that is sent when no replica answers, its type, and the requests that it can answer: any other query
# asks for something else.
_STATICS = {
    "list_text": ("popular.txt", "text/plain; charset=utf-8", ("GET", "HEAD")),
    "list_json": ("popular.json", "application/json", ("GET", "HEAD", "GET?n=10", "HEAD?n=10")),
}


def maps() -> str:
    """Return the maps that the locations use."""
    # If all replicas of an upstream are at their bound, or were all tried, its name is the address of the last attempt.
    # A request without a fallback is then refused; a static list only if no attempt was made before.
    lines = ["  map $upstream_addr $busy { hostnames; default 0; *.lists 1; *.feedback 1; }"]
    lines.append("  map $upstream_addr $busy_at_once { default 0; busy.lists 1; }")
    lines.append('  map $request_method $is_read { default 0; "GET" 1; "HEAD" 1; }')
    lines.append('  map $location $allow { default ""; health "GET, HEAD"; }')
    for to, (_, _, requests) in _STATICS.items():
        known = " ".join(f'"{request}" 1;' for request in requests)
        lines.append(f"  map $request_method$is_args$args ${to}_is_static {{ default 0; {known} }}")
    return "\n".join(lines)


def choices(settings: BalancerSettings) -> str:
    """Return the directives that set a request's route; later ones override earlier ones."""
    found: dict[bool, list[str]] = {False: [], True: []}
    for route in ROUTES:
        location = route.separate if settings.candidates and route.separate is not None else route.location
        found[route.location in _HEALTH].append(
            f'if ($request_uri ~ "{route.pattern}") {{ set $route "{route.path}"; set $location {location}; }}'
        )
    # Last, so that health is answered on any host: a health checker knows an address and no name.
    lines = [*found[False], *client_rules.preflight(settings), *client_rules.foreign(settings), *found[True]]
    return "\n".join("    " + line for line in lines)


def item_locations(settings: BalancerSettings) -> str:
    """Return the named locations of what replicas that find candidates serve; none if there are none."""
    if not settings.candidates:
        return ""
    return f"""\
    # Replicas that find candidates, and the others while none of them answers.
    location @items {{
{client_rules.limits(settings)}
      proxy_pass http://items.lists;
      proxy_next_upstream error timeout invalid_header non_idempotent http_504;
    }}
    location @item_changes {{
{client_rules.limits(settings)}
      proxy_pass http://items.feedback;
      proxy_read_timeout {settings.events_timeout_ms}ms;
      proxy_next_upstream_timeout {settings.events_budget_ms}ms;
    }}
"""


def lists(settings: BalancerSettings, models: str) -> str:
    """Return the named locations of lists; `models` is the folder with the static lists, quoted for nginx."""
    return "\n".join(block for to in _STATICS for block in (_list(to, settings), _static(to, models, settings)))


def _list(to: str, settings: BalancerSettings) -> str:
    # The error_page lines of a location replace the server's and, here, a replica's answer with such a status too; so
    # only the statuses that nginx itself may produce here are repeated.
    pages = "\n".join(" " * 6 + line for line in (*error_pages(frozenset({400, 413, 500})), limit_page()))
    return f"""\
    location @{to} {{
{client_rules.limits(settings)}
      proxy_pass http://busy.lists;
      proxy_read_timeout {settings.list_timeout_ms}ms;
      proxy_next_upstream error timeout invalid_header non_idempotent http_504;
      proxy_next_upstream_timeout {settings.list_budget_ms}ms;
      proxy_intercept_errors on;
{pages}
      error_page 502 504 =200 @{to}_static;
    }}"""


def _static(to: str, models: str, settings: BalancerSettings) -> str:
    name, kind, _ = _STATICS[to]
    headers = "".join(f"      {header}\n" for header in client_rules.headers(settings))
    return f"""\
    location @{to}_static {{
      if ($busy_at_once) {{ return 503; }}
      if (${to}_is_static = 0) {{ return 503; }}
      root {models};
      try_files /{name} =503;
      types {{ }}
      default_type "{kind}";
      add_header X-Degraded static;
      add_header Cache-Control no-store;
      add_header X-Content-Type-Options nosniff;
{headers}      # Conditions and ranges of the request refer to another answer.
      if_modified_since off;
      etag off;
      max_ranges 0;
    }}"""
