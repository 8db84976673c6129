import pytest

from ops.cluster.machine import interface_of, own_address, parse_address
from service.errors import UsageError


def test_the_address_is_that_of_the_interface_on_the_way() -> None:
    assert own_address(("127.0.0.1", 9)) == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    with pytest.raises(UsageError, match=r"^203\.0\.113\.7 is not an address of this machine\.$"):
        interface_of("203.0.113.7")


def test_an_address_is_a_host_and_a_port() -> None:
    assert parse_address("10.0.0.1:7379") == ("10.0.0.1", 7379)
    for malformed in ("10.0.0.1", ":7379", "host:", "host:0", "host:99999", "host:http"):
        with pytest.raises(UsageError, match="is not the address of a head: it must be HOST:PORT"):
            parse_address(malformed)
