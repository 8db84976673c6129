"""Loopback hosts and browser origins mean the same to the balancer and to the service, which share no code."""

import pytest

from loadbalancer import setting_lists
from loadbalancer.errors import BadSetting
from loadbalancer.settings import BalancerSettings
from service.errors import UsageError
from service.security.api_key import parse_origin
from service.security.exposure import is_loopback


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("*", False),
        ("10.0.0.1", False),
        ("127.0.0.1.evil.example", False),
    ],
)
def test_both_agree_on_loopback_hosts(host: str, loopback: bool) -> None:
    """Keys are required exactly where the balancer treats clients as those of other machines."""
    assert is_loopback(host) is BalancerSettings(host=host).loopback_only is loopback


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://shop.example", "https://shop.example"),
        ("HTTPS://Shop.Example:443/", "https://shop.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_both_write_an_origin_as_browsers_send_it(text: str, origin: str) -> None:
    """In lower case, without a default port and without a slash."""
    assert (parse_origin(text), setting_lists.origins(text)) == (origin, (origin,))


@pytest.mark.parametrize(
    "text", ["shop.example", "https://", "https://shop.example/path", "https://a@shop.example", "null", "https://*.a"]
)
def test_both_refuse_what_is_not_an_origin(text: str) -> None:
    """Each with an error of its own package."""
    with pytest.raises(UsageError):
        parse_origin(text)
    with pytest.raises(BadSetting):
        setting_lists.origins(text)
