"""The balancer's settings, as the environment gives them."""

from pathlib import Path

import pytest

from loadbalancer.errors import BadSetting
from loadbalancer.settings import BalancerSettings
from service.config import describe, read


def test_the_environment_is_read() -> None:
    """Numbers, paths and what is absent."""
    settings = read(
        BalancerSettings, {"RECOLLECT_PORT": "9000", "RECOLLECT_NGINX": "/opt/nginx", "RECOLLECT_REPLICAS": ""}
    )
    assert settings == BalancerSettings(port=9000, nginx=Path("/opt/nginx"), replicas=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECOLLECT_PORT", "0"),
        ("RECOLLECT_PORT", "65536"),
        ("RECOLLECT_REPLICAS", "0"),
        ("RECOLLECT_REPLICAS", "-1"),
        ("RECOLLECT_BALANCERS", "0"),
        ("RECOLLECT_NGINX_WORKERS", "0"),
        ("RECOLLECT_START_TIMEOUT_S", "nan"),
        ("RECOLLECT_BALANCER_HOST", "127.0.0.1; }"),
        ("RECOLLECT_BALANCER_HOST", "http://x"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(name: str, value: str) -> None:
    """Before anything is started, and before nginx is given it."""
    with pytest.raises(BadSetting, match=name):
        read(BalancerSettings, {name: value})


def test_every_setting_says_what_it_is() -> None:
    """A variable of ours, a unit and a sentence."""
    rows = list(describe(BalancerSettings))
    assert len(rows) > 10
    for env, _default, unit, doc in rows:
        assert env.startswith("RECOLLECT_")
        assert unit
        assert doc.endswith(".")
