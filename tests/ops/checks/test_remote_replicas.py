from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from ops.checks.remote_replicas import remote_replicas
from service.config import Config


class Replica(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.connection.getsockname()[1] == unready else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


unready = 0


def test_each_replica_that_is_not_ready_is_named(monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]) -> None:
    """One that is ready, one that waits for a model, one that is away, and a name without an address."""
    global unready
    servers = [HTTPServer(("127.0.0.1", 0), Replica) for _ in range(2)]
    for server in servers:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    ready, unready = (server.server_port for server in servers)
    away = free_port()
    try:
        assert remote_replicas(Config())[0] == "ok"
        monkeypatch.setenv("RECOLLECT_REMOTE_REPLICAS", f"127.0.0.1:{ready}")
        assert remote_replicas(Config()) == ("ok", "Replicas of other machines that are ready: 1, all that are named.")
        names = f"127.0.0.1:{ready},127.0.0.1:{unready} 127.0.0.1:{away},no-such-name.invalid:8081"
        monkeypatch.setenv("RECOLLECT_REMOTE_REPLICAS", names)
        status, sentence = remote_replicas(Config())
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
    assert status == "warn"
    assert f"127.0.0.1:{ready}" not in sentence
    assert f"127.0.0.1:{unready} is not ready (503)" in sentence
    assert f"127.0.0.1:{away} does not answer" in sentence
    assert "no-such-name.invalid cannot be resolved" in sentence
