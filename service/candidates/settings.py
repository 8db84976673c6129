"""The settings of the candidates service's client."""

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from service.errors import UsageError


@dataclass(frozen=True)
class CandidatesConfig:
    """The candidates service that a replica of the role `ranking` asks."""

    urls: Annotated[
        str | None,
        {"env": "RECOLLECT_CANDIDATES_URLS", "unit": "URLs"},
        "Where the candidates service is, comma separated: its replicas, or the balancer in front of them; `up` and "
        "`balance` set it for the replicas that they start.",
    ] = None
    timeout_s: Annotated[
        float,
        {"env": "RECOLLECT_CANDIDATES_TIMEOUT_S", "unit": "s"},
        "How long a list waits for candidates, two attempts together, before it is made from popular ones.",
    ] = 0.15

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the candidates service.

        Raises:
            UsageError: One is no http or https URL, or has a password; `from_env` checks it.
        """
        found = tuple(url.strip() for url in (self.urls or "").split(",") if url.strip())
        for url in found:
            try:
                parts = urlsplit(url)
                # A name and a password in it would reach logs; the key of a list's caller is what counts.
                is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc
            except ValueError:
                is_address = False
            if not is_address:
                raise UsageError(
                    f"RECOLLECT_CANDIDATES_URLS: {url.rpartition('@')[2]!r} is no http or https URL without a password."
                )
        return found
