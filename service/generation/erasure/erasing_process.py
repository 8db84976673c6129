"""The process that erases users from generated lists for a consumer: an order on standard input, and an answer.

Invariant: it ends when the consumer does, however that happens: its standard input is closed then.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from service.errors import RecollectError
from telemetry.errors import FailpointError
from telemetry.failpoints import Failpoints
from telemetry.pseudonym import Pseudonymiser


def _error_of(order: dict[str, Any]) -> str | None:
    """Carry out an order; returns why that is not possible, None if it is done."""
    try:
        import pyarrow as pa

        from service.generation.erasure.chosen_users import named_until
        from service.generation.erasure.folder_erasure import erase_below
    except ModuleNotFoundError as error:
        return (
            f"Generated lists in {order['root']} may hold an erased user, and searching them needs the package "
            f"{error.name}; install recollect[train]."
        )
    # The consumer has the other cores.
    pa.set_cpu_count(1)
    key = order["pseudonym_key"]
    pseudonyms = Pseudonymiser(None if key is None else bytes.fromhex(key))
    try:
        chosen = named_until(order["users"], pseudonyms)
        erase_below(Path(order["root"]), chosen, Failpoints.parse(order["failpoint"]))
    except (RecollectError, FailpointError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - its text may name a user, and the answer is logged
        return f"Users cannot be erased from generated lists in {order['root']}: {type(error).__name__}."
    return None


def _exit_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Read an order, carry it out and answer."""
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_at_end_of_input, daemon=True).start()
    answer = json.dumps({"error": _error_of(order)}).encode() + b"\n"
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    # Without waiting for the thread, which holds standard input.
    os._exit(0)


if __name__ == "__main__":
    main()
