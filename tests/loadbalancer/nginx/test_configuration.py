"""The rendered configuration: compared with golden files, and checked by nginx itself."""

import dataclasses
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadbalancer.binaries import find_nginx
from loadbalancer.errors import BadSetting, ConfigurationRefused
from loadbalancer.nginx import configuration, configuration_files, routes
from loadbalancer.nginx.configuration import OPTIONAL_DIRECTIVES, NginxHost
from loadbalancer.settings import BalancerSettings
from loadbalancer.topology import Balancer, RemoteReplica, Replica, Topology
from service.serving.app import ROUTES
from tests.support.machines.certificates import make_certificate

GOLDEN = Path(__file__).parent / "golden"

HOST = NginxHost(
    run_dir=Path("/srv/recollect/run/nginx-0"),
    logs=Path("/srv/logs"),
    models=Path("/srv/recollect/models"),
    features=frozenset(OPTIONAL_DIRECTIVES),
    user=("root", "root"),
    open_files=1_048_576,
)


@pytest.fixture
def free_directory() -> Iterator[Path]:
    """A folder that a normal user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="recollect-") as folder:
        yield Path(folder)


def topology(host: str, port: int, *, replicas: int = 3, balancers: int = 1, candidates: int = 0) -> Topology:
    slots = range(replicas, replicas + candidates)
    return Topology(
        tuple(Replica(f"replica-{slot}", "127.0.0.1", 20001 + slot, 21001 + slot) for slot in range(replicas)),
        tuple(Balancer(f"nginx-{number}", host, port, 22001 + number) for number in range(balancers)),
        tuple(Replica(f"candidates-{slot}", "127.0.0.1", 20001 + slot, 21001 + slot) for slot in slots),
    )


def rendered(settings: BalancerSettings, machine: NginxHost = HOST, *, replicas: int = 3, balancers: int = 1) -> str:
    candidates = settings.candidates
    fleet = topology(settings.host, settings.port, replicas=replicas, balancers=balancers, candidates=candidates)
    return configuration.render(fleet, fleet.balancers[0], settings, machine)


CASES = {
    "nginx-loopback.conf": (BalancerSettings(), HOST),
    "nginx-tls.conf": (
        BalancerSettings(
            tls_cert=Path("/etc/recollect/tls.crt"),
            tls_key=Path("/etc/recollect/tls.key"),
            trusted_proxies="10.0.0.0/8, 192.0.2.7",
            hosts="shop.example,*.shop.example",
            cors_origins="https://shop.example http://localhost:3000",
            key_requests_per_s=50,
            client_burst=0,
        ),
        HOST,
    ),
    "nginx-candidates.conf": (BalancerSettings(candidates=2), HOST),
    "nginx-public.conf": (
        BalancerSettings(host="::", port=80, balancers=1, workers=2),
        dataclasses.replace(HOST, features=frozenset(), user=None, open_files=1024),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_rendered_file_is_the_golden_one(name: str) -> None:
    """Review shows every change of the configuration. To accept one: RECOLLECT_TEST_WRITE_GOLDEN=1."""
    settings, machine = CASES[name]
    text = rendered(settings, machine, balancers=settings.balancers)
    if os.environ.get("RECOLLECT_TEST_WRITE_GOLDEN"):
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def test_client_limits_apply_where_other_machines_can_connect() -> None:
    """On loopback all clients may share an address, so there is a limit only if one is set."""
    public = rendered(BalancerSettings(host="0.0.0.0", client_connections=7, client_requests_per_s=8, client_burst=9))
    assert "limit_conn connections 7;" in public
    assert "limit_req_zone $binary_remote_addr zone=requests:2m rate=8r/s;" in public
    assert "limit_req zone=requests burst=9 nodelay;" in public
    assert "limit_req_zone $given_key zone=keys:4m rate=2000r/s;" in public
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        assert re.search("limit_(conn|req)", rendered(BalancerSettings(host=host))) is None
        assert "rate=8r/s;" in rendered(BalancerSettings(host=host, client_requests_per_s=8))
    # Behind a trusted proxy, clients have their own addresses.
    assert "rate=2000r/s;" in rendered(BalancerSettings(trusted_proxies="127.0.0.1"))


def test_every_location_that_passes_requests_on_has_limits_except_health() -> None:
    """A location without them would bypass the limits."""
    text = rendered(BalancerSettings(client_requests_per_s=8, key_requests_per_s=9))
    for name, block in re.findall(r"location @(\w+) \{\n(.*?)\n    \}", text, re.DOTALL):
        limited = "limit_req zone=requests" in block and "limit_req zone=keys" in block
        assert limited == ("proxy_pass" in block and name not in ("ready", "unready")), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls_cert": Path("a")}, "RECOLLECT_TLS_CERT and RECOLLECT_TLS_KEY are set together"),
        ({"trusted_proxies": "10.0.0.0/8 proxy.example"}, "'proxy.example' is neither an IP address"),
        ({"hosts": "shop.example;"}, "RECOLLECT_HOSTS: 'shop.example;'"),
        ({"hosts": "a.*.example"}, "RECOLLECT_HOSTS"),
        ({"cors_origins": "shop.example"}, "'shop.example' is not an origin"),
        ({"cors_origins": 'https://shop.example"'}, "is not an origin"),
        ({"cors_origins": "https://shop.example/path"}, "is not an origin"),
        ({"remote_replicas": "192.0.2.7"}, "'192.0.2.7' is not HOST:PORT"),
        ({"remote_replicas": "a.example:0"}, "is not HOST:PORT"),
        ({"remote_replicas": "*.example:80"}, "is not HOST:PORT"),
        ({"remote_replicas": "a.example;:80"}, "is not HOST:PORT"),
        ({"replicas_host": "127.0.0.1; }"}, "RECOLLECT_REPLICAS_HOST"),
        ({"replicas_host": "10.0.0.11"}, "need RECOLLECT_REPLICAS_PORT"),
        ({"cors_origins": "*,https://shop.example"}, "'\\*' is not an origin"),
    ],
)
def test_a_value_that_nginx_could_misread_is_refused(settings: dict[str, Any], message: str) -> None:
    """The error names its variable."""
    with pytest.raises(BadSetting, match=message):
        BalancerSettings(**settings)


@pytest.mark.parametrize("balancers", [1, 2])
def test_nginx_accepts_tls_and_all_client_settings(balancers: int, tmp_path: Path) -> None:
    """With either syntax of HTTP/2, and without a warning."""
    binary = find_nginx(None).path
    cert, key = make_certificate(tmp_path)
    settings = dataclasses.replace(CASES["nginx-tls.conf"][0], tls_cert=cert, tls_key=key, port=18443)
    machine = configuration_files.inspect_host(binary, run_dir=tmp_path / "run", logs=tmp_path, models=tmp_path)
    argv = configuration_files.command(binary, tmp_path / "run", tmp_path / "nginx-0.error.log")
    configuration_files.install(argv, tmp_path / "run", rendered(settings, machine, balancers=balancers))
    assert "[warn]" not in (tmp_path / "nginx-0.error.log").read_text()
    key.write_text("no key")
    with pytest.raises(ConfigurationRefused, match="cannot load certificate key"):
        configuration_files.install(argv, tmp_path / "run", rendered(settings, machine, balancers=balancers))


def test_every_attempt_can_reach_a_living_replica() -> None:
    """There are more tries than replicas, which occur twice: ejectable, and as a backup never ejected."""
    text = rendered(BalancerSettings(), replicas=9)
    assert "proxy_next_upstream_tries 11;" in text
    upstreams = dict(re.findall(r"upstream ([\w.]+) \{(.*?)\n  \}", text, re.DOTALL))
    assert len(re.findall(r"server 127\.0\.0\.1:\d+ max_fails=0;", upstreams.pop("unready"))) == 9
    for name, servers in upstreams.items():
        ejected = "max_fails=1 fail_timeout=5s" if name == "health" else "max_fails=3 fail_timeout=1s"
        assert len(re.findall(rf"server 127\.0\.0\.1:\d+ {ejected}( max_conns=\d+)?;", servers)) == 9
        assert len(re.findall(r"server 127\.0\.0\.1:\d+ max_fails=0( max_conns=\d+)? backup;", servers)) == 9


def test_replicas_of_other_machines_are_served_by_the_same_rules() -> None:
    """They stand beside the own ones in every upstream but that of checks, IPv6 in brackets, and count as tries."""
    remote = tuple(RemoteReplica(host, 8081) for host in ("192.0.2.7", "192.0.2.8", "2001:db8::1"))
    fleet = dataclasses.replace(topology("127.0.0.1", 8080), remote=remote)
    text = configuration.render(fleet, fleet.balancers[0], BalancerSettings(), HOST)
    assert "proxy_next_upstream_tries 8;" in text
    for name, servers in re.findall(r"upstream ([\w.]+) \{(.*?)\n  \}", text, re.DOTALL):
        for written in ("192.0.2.7:8081", "192.0.2.8:8081", "[2001:db8::1]:8081"):
            n_ejected = 0 if name in ("health", "unready") else 1
            backup = "" if name == "unready" else " backup"
            assert len(re.findall(rf"server {re.escape(written)} max_fails=3 fail_timeout=1s", servers)) == n_ejected
            assert len(re.findall(rf"server {re.escape(written)} max_fails=0( max_conns=\d+)?{backup};", servers)) == 1


def test_a_check_of_readiness_waits_for_no_dead_machine() -> None:
    """The replicas of this machine are asked first, and those of others if it has none or none of them is ready."""
    remote = (RemoteReplica("192.0.2.7", 8081),)
    for n_replicas, first in ((2, ["127.0.0.1:20001", "127.0.0.1:20002"]), (0, ["192.0.2.7:8081"])):
        fleet = dataclasses.replace(topology("127.0.0.1", 8080, replicas=n_replicas), remote=remote)
        text = configuration.render(fleet, fleet.balancers[0], BalancerSettings(), HOST)
        assert re.findall(r"server (\S+) max_fails=1 fail_timeout=5s;", text) == first


def test_nginx_accepts_replicas_of_other_machines_and_none_at_all(tmp_path: Path) -> None:
    """Names may have no address yet when the first nginx starts."""
    binary = find_nginx(None).path
    machine = configuration_files.inspect_host(binary, run_dir=tmp_path / "run", logs=tmp_path, models=tmp_path)
    argv = configuration_files.command(binary, tmp_path / "run", tmp_path / "nginx-0.error.log")
    for remote in ((), (RemoteReplica("192.0.2.7", 8081), RemoteReplica("2001:db8::1", 8081))):
        fleet = dataclasses.replace(topology("127.0.0.1", 18080, replicas=0), remote=remote)
        settings = BalancerSettings(replicas=0, port=18080, remote_replicas="a.example:8081")
        configuration_files.install(
            argv, tmp_path / "run", configuration.render(fleet, fleet.balancers[0], settings, machine)
        )
    assert "[warn]" not in (tmp_path / "nginx-0.error.log").read_text()


def test_a_rejected_replacement_leaves_the_old_file(tmp_path: Path) -> None:
    """An nginx that restarts later must still find a file that it accepts."""
    binary = find_nginx(None).path
    machine = configuration_files.inspect_host(binary, run_dir=tmp_path / "run", logs=tmp_path, models=tmp_path)
    argv = configuration_files.command(binary, tmp_path / "run", tmp_path / "nginx-0.error.log")
    settings = BalancerSettings(port=18080)
    text = rendered(settings, machine)
    configuration_files.install(argv, tmp_path / "run", text)
    reason = configuration_files.replace(argv, tmp_path / "run", text.replace("least_conn;", "most_conn;"))
    assert reason is not None
    assert 'unknown directive "most_conn"' in reason
    assert (tmp_path / "run" / "nginx.conf").read_text() == text
    assert configuration_files.replace(argv, tmp_path / "run", f"{text}# Newer.\n") is None
    assert (tmp_path / "run" / "nginx.conf").read_text().endswith("# Newer.\n")
    assert not (tmp_path / "run" / "nginx.conf.new").exists()


def test_masters_share_a_port_only_if_there_are_several() -> None:
    """A single master must fail on a taken port."""
    assert "listen 127.0.0.1:8080 backlog=4096;" in rendered(BalancerSettings())
    assert "listen 127.0.0.1:8080 backlog=4096 reuseport;" in rendered(BalancerSettings(), balancers=2)


def test_masters_differ_only_in_folder_logs_and_probe_port() -> None:
    """They answer requests alike."""
    fleet = topology("127.0.0.1", 8080, balancers=2)
    first, second = (
        configuration.render(
            fleet, each, BalancerSettings(), dataclasses.replace(HOST, run_dir=HOST.run_dir.parent / each.name)
        )
        for each in fleet.balancers
    )
    assert first != second
    assert first.replace("nginx-0", "nginx-1").replace(":22001 ", ":22002 ") == second


def test_the_access_log_holds_no_client_input_but_the_method() -> None:
    """A path would keep the id of an erased user."""
    text = rendered(BalancerSettings())
    logged = re.search(r"log_format operations escape=json (.*?);", text, re.DOTALL)
    assert logged is not None
    assert set(re.findall(r"\$(\w+)", logged.group(1))) == {
        "time_iso8601", "request_id", "request_method", "route", "status", "request_time",
        "upstream_addr", "upstream_status", "upstream_response_time",
    }  # fmt: skip
    routes = set(re.findall(r"set \$route (.*?);", text))
    assert routes >= {'"/recommend/"', '"/v1/recommendations/"', '"/v1/events"', '"/v1/users/"'}
    assert not any("$" in route for route in routes)


def test_routes_match_the_raw_target() -> None:
    """One location takes every normalised path; no other can be reached from outside."""
    text = rendered(BalancerSettings())
    public = text[: text.index("# For the supervisor's probes")]
    locations = re.findall(r"^ +location (.+?) \{", public, re.MULTILINE)
    assert [name for name in locations if name[0] != "@"] == [
        "/", "= /../problem/400", "= /../problem/414", "= /../problem/505",
    ]  # fmt: skip
    assert "http://replicas" not in text
    # proxy_pass without a path sends the client's target unchanged.
    assert set(re.findall(r"[{ ] proxy_pass ([^;]+);", public)) == {
        "http://busy.lists",
        "http://busy.feedback",
        "http://health",
        "http://unready",
    }


@pytest.mark.parametrize(
    ("target", "to"),
    [
        ("/recommend/..", "list_text"),
        ("/recommend/a%2F..%2F..%2Fhealthz", "list_text"),
        ("/v1/recommendations", "model"),
        ("/v1/recommendations?n=3", "model"),
        ("/v1/recommendations/a?n=3", "list_json"),
        ("/v1/recommendations/batch", "model"),
        ("/v1/recommendations/batches", "list_json"),
        ("/v1/recommendationsx", None),
        ("/v1/events", "events"),
        ("/v1/events/", None),
        ("/v1/events/../users/a", None),
        ("/v1/users/", "others"),
        ("/v1/items/a%2Fb?n=3", "model"),
        ("/v1/items?item_id=..", "events"),
        ("/openapi.json", "others"),
        ("/openapi_json", None),
        ("/healthz?x", "health"),
        ("//healthz", None),
        ("/docs/", None),
        ("/", None),
    ],
)
def test_the_last_matching_pattern_routes_a_target(target: str, to: str | None) -> None:
    """nginx applies the patterns in the same order."""
    matching = [route.location for route in routes.ROUTES if re.search(route.pattern, target)]
    assert matching[-1:] == ([] if to is None else [to])


def test_every_route_of_the_service_has_a_location() -> None:
    """A new route of a replica needs one in nginx."""
    for path in {route.path for route in ROUTES}:
        assert any(re.search(route.pattern, path) for route in routes.ROUTES), path


def test_lists_are_refused_before_feedback_and_health_never() -> None:
    """Each replica has a bound for lists, a wider one for other requests, and none for readiness probes."""
    text = rendered(BalancerSettings(list_concurrency=10, feedback_concurrency=21))
    bounds = {
        name: set(re.findall(r"max_conns=(\d+)", servers))
        for name, servers in re.findall(r"upstream ([\w.]+) \{(.*?)\n  \}", text, re.DOTALL)
    }
    # Each replica occurs twice.
    assert bounds == {"busy.lists": {"5"}, "busy.feedback": {"11"}, "health": set(), "unready": set()}


def test_problem_bodies_are_json_with_their_status() -> None:
    """Their types are the service's."""
    bodies = re.findall(r"return (\d+) '(\{.*?\})\\n';", rendered(BalancerSettings()))
    assert len(bodies) > 10
    for status, body in bodies:
        problem = json.loads(body)
        assert problem["status"] == int(status)
        assert problem["type"].startswith("/problems/")
        assert problem["title"]
        assert problem["detail"]


@pytest.mark.parametrize("path", ["/srv/$HOME", "/srv/a\nb"])
def test_a_path_that_nginx_cannot_express_is_refused(path: str) -> None:
    """nginx would read a variable or another directive."""
    with pytest.raises(BadSetting, match="dollar sign"):
        rendered(BalancerSettings(), dataclasses.replace(HOST, logs=Path(path)))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
@pytest.mark.parametrize("features", ["probed", "none"])
@pytest.mark.parametrize("balancers", [1, 2])
def test_nginx_accepts_the_configuration(host: str, features: str, balancers: int, tmp_path: Path) -> None:
    """Also in folders whose names need quotes. nginx writes nothing outside them."""
    binary = find_nginx(None).path
    home = tmp_path / 'a "strange; {name} \\ of'
    logs = home / "logs"
    logs.mkdir(parents=True)
    machine = configuration_files.inspect_host(binary, run_dir=home / "run", logs=logs, models=home / "models")
    if features == "none":
        # The directory directives stay: without them nginx falls back on folders that it was compiled with.
        machine = dataclasses.replace(machine, features=machine.features - {"max_headers"})
    text = rendered(BalancerSettings(host=host, port=18080), machine, balancers=balancers)
    argv = configuration_files.command(binary, home / "run", logs / "nginx-0.error.log")
    configuration_files.install(argv, home / "run", text)
    assert (home / "run" / "nginx.conf").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == [home.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_normal_user_can_run_nginx(free_directory: Path) -> None:
    """No directive needs privileges."""
    binary = find_nginx(None).path
    if subprocess.run([str(binary), "-v"], user=65534, group=65534, extra_groups=[], stderr=subprocess.PIPE).returncode:
        pytest.skip("a normal user cannot run the nginx found here")
    machine = configuration_files.inspect_host(
        binary, run_dir=free_directory / "run", logs=free_directory, models=free_directory / "models"
    )
    text = rendered(BalancerSettings(port=18080), dataclasses.replace(machine, user=None))
    (free_directory / "run").mkdir(exist_ok=True)
    (free_directory / "run" / "nginx.conf").write_text(text)
    for path in (free_directory, free_directory / "run"):
        os.chown(path, 65534, 65534)
    argv = configuration_files.command(binary, free_directory / "run", free_directory / "nginx-0.error.log")
    done = subprocess.run(
        [*argv, "-t"], user=65534, group=65534, extra_groups=[], stderr=subprocess.STDOUT, stdout=subprocess.PIPE
    )
    assert done.returncode == 0, done.stdout.decode()
    assert b"[warn]" not in done.stdout
    assert b"[alert]" not in done.stdout
