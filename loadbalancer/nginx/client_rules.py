"""Directives about clients: TLS, client addresses, hosts, origins, and limits for each client and key.

Sources: TLS as in RFC 9325 (1.2 with forward secrecy and authenticated ciphers, 1.3); CORS as in the Fetch standard.
"""

from collections.abc import Callable
from pathlib import Path

from loadbalancer import setting_lists
from loadbalancer.nginx.problems import OVER_LIMIT
from loadbalancer.settings import BalancerSettings

_PUBLIC_CONNECTIONS = 200
_PUBLIC_REQUESTS_PER_S = 2000

_CIPHERS = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signature in ("ECDSA", "RSA")
)
_ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, X-API-Key"
_EXPOSED_HEADERS = "Retry-After, X-Degraded, X-Recommendation-Id, WWW-Authenticate"


def zones(settings: BalancerSettings) -> str:
    """Return the shared memory zones in which requests are counted."""
    connections, per_address, per_key = _limits(settings)
    lines = []
    if connections is not None:
        lines += ["limit_conn_zone $binary_remote_addr zone=connections:2m;", f"limit_conn_status {OVER_LIMIT};"]
    if per_address is not None:
        lines.append(f"limit_req_zone $binary_remote_addr zone=requests:2m rate={per_address}r/s;")
    if per_key is not None:
        # As in a replica: a key counts the same in either header. A request without a key is not counted.
        lines.append(
            'map $http_authorization $bearer { default $http_authorization; "~*^bearer +(?<token>.*)$" $token; }'
        )
        lines.append('map $http_x_api_key $given_key { default $http_x_api_key; "" $bearer; }')
        lines.append(f"limit_req_zone $given_key zone=keys:4m rate={per_key}r/s;")
    if per_address is not None or per_key is not None:
        lines.append(f"limit_req_status {OVER_LIMIT};")
    return _indented(lines, 2)


def limits(settings: BalancerSettings) -> str:
    """Return the limits of the locations that pass requests on; health has none."""
    connections, per_address, per_key = _limits(settings)
    burst = f" burst={settings.client_burst} nodelay" if settings.client_burst else ""
    lines = [] if connections is None else [f"limit_conn connections {connections};"]
    if per_address is not None:
        lines.append(f"limit_req zone=requests{burst};")
    if per_key is not None:
        lines.append(f"limit_req zone=keys{burst};")
    return _indented(lines, 6)


def listen_options(settings: BalancerSettings, *, http2_directive: bool) -> str:
    """Return the options of the listen directive; older nginx has HTTP/2 only there."""
    if settings.tls_cert is None:
        return ""
    return " ssl" if http2_directive else " ssl http2"


def tls(settings: BalancerSettings, quoted: Callable[[Path], str], *, http2_directive: bool) -> str:
    """Return the directives of TLS; `quoted` quotes a path for nginx."""
    if settings.tls_cert is None or settings.tls_key is None:
        return ""
    lines = ["http2 on;"] if http2_directive else []
    lines += [
        f"ssl_certificate {quoted(settings.tls_cert.absolute())};",
        f"ssl_certificate_key {quoted(settings.tls_key.absolute())};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        f"ssl_ciphers {_CIPHERS};",
        "ssl_prefer_server_ciphers off;",
        "ssl_session_cache shared:tls:2m;",
        "ssl_session_timeout 1h;",
        # Each nginx would have its own ticket keys, so that the others could not use its tickets.
        "ssl_session_tickets off;",
    ]
    return _indented(lines, 4)


def real_address(settings: BalancerSettings) -> str:
    """Return the directives that find the client address behind trusted proxies."""
    proxies = setting_lists.proxies(settings.trusted_proxies)
    if not proxies:
        return ""
    lines = [f"set_real_ip_from {proxy};" for proxy in proxies]
    return _indented([*lines, "real_ip_header X-Forwarded-For;", "real_ip_recursive on;"], 2)


def maps(settings: BalancerSettings) -> str:
    """Return the maps that decide whether a host is served and which origin may read an answer."""
    lines = []
    hosts = setting_lists.hosts(settings.hosts)
    if hosts:
        known = " ".join(f'"{host}" 0;' for host in dict.fromkeys(("localhost", "127.0.0.1", "[::1]", *hosts)))
        lines.append(f"map $host $foreign {{ hostnames; default 1; {known} }}")
    origins = setting_lists.origins(settings.cors_origins)
    if origins == (setting_lists.ANY_ORIGIN,):
        lines.append('map $http_origin $cors_origin { default "*"; "" ""; }')
    elif origins:
        listed = " ".join(f'"{origin}" "{origin}";' for origin in origins)
        lines.append(f'map $http_origin $cors_origin {{ default ""; {listed} }}')
    if origins:
        lines += [
            f'map $cors_origin $cors_exposed {{ default "{_EXPOSED_HEADERS}"; "" ""; }}',
            'map $cors_origin $cors_known { default 1; "" 0; }',
            'map $http_access_control_request_method $cors_asked { default 1; "" 0; }',
            'map "$request_method $cors_known $cors_asked" $preflight { default 0; "OPTIONS 1 1" 1; }',
        ]
    return _indented(lines, 2)


def foreign(settings: BalancerSettings) -> list[str]:
    """Return the directive that rejects a request for another host."""
    return ["if ($foreign) { set $location foreign; }"] if settings.hosts else []


def preflight(settings: BalancerSettings) -> list[str]:
    """Return the directive that answers a CORS preflight."""
    return ["if ($preflight) { set $location preflight; }"] if settings.cors_origins else []


def headers(settings: BalancerSettings) -> list[str]:
    """Return the headers of every answer; a location with headers of its own must repeat them."""
    if not settings.cors_origins:
        return []
    return [
        "add_header Access-Control-Allow-Origin $cors_origin always;",
        "add_header Access-Control-Expose-Headers $cors_exposed always;",
        "add_header Vary Origin always;",
    ]


def locations(settings: BalancerSettings) -> str:
    """Return the locations that answer a foreign host and a preflight."""
    lines = []
    if settings.hosts:
        lines += ["location @foreign { return 421; }"]
    if settings.cors_origins:
        lines += [
            "location @preflight {",
            "  add_header Access-Control-Allow-Origin $cors_origin;",
            '  add_header Access-Control-Allow-Methods "GET, HEAD, POST, PUT, DELETE";',
            f'  add_header Access-Control-Allow-Headers "{_ALLOWED_HEADERS}";',
            "  add_header Access-Control-Max-Age 600;",
            "  add_header Vary Origin;",
            "  return 204;",
            "}",
        ]
    return _indented(lines, 4)


def _limits(settings: BalancerSettings) -> tuple[int | None, int | None, int | None]:
    """Return the limits of connections, requests per address and requests per key, as set or of a public listener.

    On loopback there are none by default, since all clients may share one address.
    """
    public = settings.distinguishes_clients
    return (
        settings.client_connections or (_PUBLIC_CONNECTIONS if public else None),
        settings.client_requests_per_s or (_PUBLIC_REQUESTS_PER_S if public else None),
        settings.key_requests_per_s or (_PUBLIC_REQUESTS_PER_S if public else None),
    )


def _indented(lines: list[str], by: int) -> str:
    return "\n".join(" " * by + line for line in lines)
