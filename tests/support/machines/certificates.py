"""Certificates for the tests of TLS, made by the openssl command."""

import subprocess
from pathlib import Path


def make_certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """Make a self-signed certificate for localhost and 127.0.0.1.

    Args:
        folder: Where its two files go, replacing older ones.
        name: Its subject, to tell one from another.

    Returns:
        The certificate and its key.
    """
    cert, key = folder / "tls.crt", folder / "tls.key"
    kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,DNS:*.test,IP:127.0.0.1"]
    subprocess.run(
        ["openssl", *kind, *names, "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return cert, key
