"""The check of the address that moves, as keepalived calls it. The drill of nodes runs keepalived itself."""

import contextlib
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

from tests.support.machines.certificates import make_certificate
from tests.support.machines.programs import need_programs

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
