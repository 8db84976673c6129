import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.stream.key_names import KeyNames
from telemetry.stream.redis_check import command_checks
from telemetry.stream.redis_slots import N_SLOTS, Redirection, RedisNode, redirection, slot_of_command, slot_of_key


def crc16(data: bytes) -> int:
    """CRC16 of the cluster specification, bit by bit: polynomial 1021, initial value 0."""
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1) ^ (0x1021 if value & 0x8000 else 0)
            value &= 0xFFFF
    return value


@given(st.binary().filter(lambda key: b"{" not in key))
def test_a_key_without_a_tag_is_hashed_as_a_whole(key: bytes) -> None:
    assert slot_of_key(key) == crc16(key) % N_SLOTS


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        ("123456789", b"123456789"),
        ("{user1000}.following", b"user1000"),
        ("foo{}{bar}", b"foo{}{bar}"),
        ("foo{{bar}}zap", b"{bar"),
        ("foo{bar}{zap}", b"bar"),
        ("foo{bar", b"foo{bar"),
    ],
)
def test_a_hash_tag_is_hashed_alone(key: str, hashed: bytes) -> None:
    """The examples of the specification."""
    assert crc16(b"123456789") == 0x31C3
    assert slot_of_key(key) == crc16(hashed) % N_SLOTS


def test_every_command_of_the_service_is_sent_where_its_key_is() -> None:
    """The stream and the watermark of a producer share a slot."""
    keys = KeyNames()
    slots = {keys.owner, keys.producers, keys.live, keys.events("rehearsal")}
    assert {slot_of_command(check.command) for check in command_checks(keys)} == set(map(slot_of_key, slots))
    assert slot_of_key(keys.events("p")) == slot_of_key(keys.watermark("p"))
    assert slot_of_command(("CONFIG", "GET", "appendonly")) is None
    assert slot_of_command(("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", "{k}x", ">")) == slot_of_key("k")


def test_redirections_are_read() -> None:
    assert redirection("MOVED 3999 127.0.0.1:6381") == Redirection(3999, RedisNode("127.0.0.1", 6381), once=False)
    assert redirection("ASK 3999 [2001:db8::1]:6381") == Redirection(3999, RedisNode("2001:db8::1", 6381), once=True)
    assert redirection("MOVED 3999 :6381") == Redirection(3999, RedisNode("", 6381), once=False)
    for other in ("ERR no such key", "MOVED", "MOVED x 127.0.0.1:6381", "MOVED 1 127.0.0.1", "CLUSTERDOWN Hash slot"):
        assert redirection(other) is None
