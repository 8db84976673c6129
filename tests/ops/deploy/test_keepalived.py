"""The address that moves: the check as keepalived calls it, and keepalived on two nodes. Loads: the drill of nodes."""

import contextlib
import math
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from loadbalancer.nginx.configuration import (
    READY_BUDGET_MS,
    READY_TIMEOUT_MS,
    UNREADY_BUDGET_MS,
    UNREADY_TIMEOUT_MS,
)
from ops.nodes.address_keeper import KEEPALIVED, AddressKeeper
from ops.nodes.network import network
from ops.nodes.node_journal import NodeJournal
from tests.support.machines.certificates import make_certificate
from tests.support.machines.programs import need_programs
from tests.support.machines.real_nodes import require_nodes

FOLDER = Path(__file__).resolve().parents[3] / "ops" / "deploy" / "keepalived"


@contextlib.contextmanager
def nginx(status: int, certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Answer /readyz as nginx does; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http{'' if certificate is None else 's'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def is_well(url: str) -> bool:
    """Run the command of the shipped configuration, with its variable set to this URL."""
    text = (FOLDER / "keepalived.conf").read_text()
    assert re.search(r"^\$URL=http://127\.0\.0\.1:8080$", text, re.MULTILINE)
    script = re.search(r'^  script "(.*)"$', text, re.MULTILINE)
    assert script is not None
    # keepalived passes on $URL without braces as it is.
    words = script[1].replace("/etc/keepalived", str(FOLDER)).replace("${URL}", url).split()
    return subprocess.run(["sh", *words], check=False).returncode == 0


def test_the_check_asks_nginx_at_its_url(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Over TLS too, whose certificate names no loopback address; without a ready replica or an nginx it fails."""
    need_programs("curl", "openssl")
    certificate = make_certificate(tmp_path)
    with nginx(200) as plain, nginx(200, certificate) as secure, nginx(503) as unready:
        assert [is_well(url) for url in (plain, secure, unready)] == [True, True, False]
        assert not is_well(secure.replace("https", "http"))
    assert not is_well(f"http://127.0.0.1:{free_port()}")


def test_each_limit_of_a_check_is_longer_than_the_one_within() -> None:
    """If a check ends before nginx gives a replica up, that is no failure of the replica, and it is asked again."""
    (check_s,) = re.findall(r"--max-time (\d+)", (FOLDER / "check-recollect").read_text())
    (keepalived_s,) = re.findall(r"^  timeout (\d+)$", (FOLDER / "keepalived.conf").read_text(), re.MULTILINE)
    # nginx may ask the last replica at the end of its budget, and after that asks for the reason in the same way.
    nginx_ms = READY_BUDGET_MS + READY_TIMEOUT_MS + UNREADY_BUDGET_MS + UNREADY_TIMEOUT_MS
    assert nginx_ms < 1000 < 1000 * int(check_s) < 1000 * int(keepalived_s)
    # After a silent replica another one is asked, in both steps.
    assert READY_TIMEOUT_MS < READY_BUDGET_MS
    assert UNREADY_TIMEOUT_MS < UNREADY_BUDGET_MS


# A holder whose keepalived waits for a processor for a second counts as dead.
@pytest.mark.alone
def test_the_address_goes_to_a_node_that_is_ready_and_one_has_it_while_none_is(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """A node that becomes ready again does not take it back. A node is ready while a file is on its disk."""
    require_nodes()
    need_programs("curl", "keepalived")
    journal = NodeJournal()
    with network(2, names=["one", "two"], folder=tmp_path, private=[KEEPALIVED]) as nodes:
        virtual = nodes[0].address.rpartition(".")[0] + ".100"
        keepers = {}
        for node, other in zip(nodes, reversed(nodes), strict=True):
            keepers[node.name] = AddressKeeper(node, [other], virtual, f"file://{KEEPALIVED}", journal)
            (node.private(KEEPALIVED) / "readyz").touch()

        def holders() -> list[str]:
            return [name for name, keeper in keepers.items() if keeper.has_address()]

        def masters() -> list[str]:
            return [note.node for note in journal.between(0, math.inf) if note.text.endswith("Entering MASTER STATE")]

        def wait_for(holder: str) -> None:
            wait_until(lambda: holders() == [holder], timeout_s=20, what=f"{holder} to have the address, and no other")

        def make_ready(*names: str) -> None:
            """Have these nodes be ready, and wait until keepalived knows which are."""
            files = {node.name: node.private(KEEPALIVED) / "readyz" for node in nodes}
            changed = [name for name, file in files.items() if file.exists() != (name in names)]
            began_s = time.monotonic()
            for name in changed:
                if name in names:
                    files[name].touch()
                else:
                    files[name].unlink()
            expected = {(name, "100" if name in names else "50") for name in changed}

            def known() -> bool:
                notes = [note for note in journal.between(began_s, math.inf) if "effective priority" in note.text]
                return expected <= {(note.node, note.text.split()[-1]) for note in notes}

            wait_until(known, timeout_s=20, what="keepalived to see who is ready")

        for keeper in keepers.values():
            keeper.start()
            # The first one has it before the other one starts.
            wait_for("one")
        make_ready()
        # The first one, or the second one if its check has failed a second later.
        wait_until(lambda: len(holders()) == 1, timeout_s=20, what="one of them to have the address")
        holder, successor = ("one", "two") if holders() == ["one"] else ("two", "one")
        make_ready(successor)
        wait_for(successor)
        moves = masters()
        assert moves in (["one", "two"], ["one", "two", "one"])
        make_ready(holder, successor)
        wait_for(successor)
        assert masters() == moves
        assert not any("FAULT" in note.text for note in journal.between(0, math.inf))
