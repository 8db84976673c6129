"""A circuit passes everything, then nothing, then one try at a time."""

from service.candidates.circuit import Circuit


def failing(circuit: Circuit, now_s: float) -> None:
    assert circuit.allows(now_s)
    circuit.enter()
    circuit.fail(now_s)


def test_it_opens_at_the_third_failure_in_a_row() -> None:
    """A success in between starts the count anew."""
    circuit = Circuit()
    for _ in range(2):
        failing(circuit, 0.0)
    circuit.enter()
    circuit.succeed()
    for _ in range(2):
        failing(circuit, 0.0)
    assert circuit.allows(0.1)
    failing(circuit, 0.0)
    assert circuit.is_open
    assert not circuit.allows(0.1)


def test_one_request_tries_the_address_after_the_pause_and_closes_the_circuit() -> None:
    """Others are refused meanwhile; a caller that gives up leaves the try to the next one."""
    circuit = Circuit()
    for _ in range(3):
        failing(circuit, 10.0)
    assert not circuit.allows(10.2)
    assert circuit.allows(10.25)
    circuit.enter()
    assert not circuit.allows(11.0)
    circuit.leave()
    assert circuit.allows(11.0)
    circuit.enter()
    circuit.succeed()
    assert not circuit.is_open
    assert circuit.allows(11.0)


def test_the_pause_doubles_up_to_two_seconds_while_tries_fail() -> None:
    """An address that is away for long is tried every two seconds."""
    circuit = Circuit()
    for _ in range(3):
        failing(circuit, 0.0)
    now_s, pauses = 0.0, []
    for _ in range(5):
        pauses.append(circuit.opens_at_s - now_s)
        now_s = circuit.opens_at_s
        failing(circuit, now_s)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 2.0]
