"""The address of a service and the headers of its requests (pure)."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from service.client.calls import Call

_USER_AGENT: Final = "recollect-client"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service answers.

    Attributes:
        host: Name or address, without brackets.
        port: The port.
        is_tls: Whether it speaks TLS.
        prefix: The path before the routes, without a final slash.
        api_key: Sent with every request; None for none.
    """

    host: str
    port: int
    is_tls: bool
    prefix: str
    api_key: str | None = None

    @classmethod
    def parse(cls, url: str, api_key: str | None = None) -> "Address":
        """Build it from a URL such as "http://127.0.0.1:8080".

        Raises:
            ValueError: The URL is not http or https, has no host, or has a user, a query or a fragment; or the API key
                has characters that a header cannot have.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"The address of a service is a URL such as http://127.0.0.1:8080, not {url!r}.")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("The address of a service has no user, query or fragment; an API key is an argument.")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ValueError("An API key has printable ASCII characters only.")
        is_tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if is_tls else 80), is_tls, parts.path.rstrip("/"), api_key)

    @property
    def base_url(self) -> str:
        """Scheme, host, port and prefix."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{self.prefix}"

    def headers(self, call: Call[Any]) -> dict[str, str]:
        """Return the headers of a call, the same at every attempt."""
        headers = {"Accept": "application/json", "User-Agent": _USER_AGENT}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        if call.key is not None:
            headers["Idempotency-Key"] = call.key
        return headers
