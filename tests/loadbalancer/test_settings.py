"""The balancer's settings, read from the environment."""

from pathlib import Path

import pytest

from loadbalancer.errors import BadSetting
from loadbalancer.settings import BalancerSettings
from service.declared_settings import read
from service.errors import UsageError


def test_the_environment_is_read() -> None:
    """Numbers, paths and absent values."""
    settings = read(
        BalancerSettings, {"RECOLLECT_PORT": "9000", "RECOLLECT_NGINX": "/opt/nginx", "RECOLLECT_REPLICAS": ""}
    )
    assert settings == BalancerSettings(port=9000, nginx=Path("/opt/nginx"), replicas=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECOLLECT_PORT", "0"),
        ("RECOLLECT_PORT", "65536"),
        ("RECOLLECT_REPLICAS", "-1"),
        ("RECOLLECT_BALANCERS", "0"),
        ("RECOLLECT_NGINX_WORKERS", "0"),
        ("RECOLLECT_START_TIMEOUT_S", "nan"),
    ],
)
def test_a_number_out_of_bounds_is_refused_by_name(name: str, value: str) -> None:
    """The sentence names the variable, before anything is started."""
    with pytest.raises(UsageError, match=name):
        read(BalancerSettings, {name: value})


def test_nginx_without_any_replica_is_refused() -> None:
    """It needs those of other machines, and cannot have some that only find candidates."""
    with pytest.raises(BadSetting, match="RECOLLECT_REMOTE_REPLICAS"):
        BalancerSettings(replicas=0)
    with pytest.raises(BadSetting, match="RECOLLECT_REPLICAS is 0"):
        BalancerSettings(replicas=0, candidates=1, remote_replicas="a.example:8081")
    assert BalancerSettings(replicas=0, remote_replicas="a.example:8081").slots == 0


@pytest.mark.parametrize("value", ["127.0.0.1; }", "http://x"])
def test_a_host_that_nginx_would_misread_is_refused_by_name(value: str) -> None:
    """The check comes before nginx gets the value."""
    with pytest.raises(BadSetting, match="RECOLLECT_BALANCER_HOST"):
        read(BalancerSettings, {"RECOLLECT_BALANCER_HOST": value})
