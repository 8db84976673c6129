"""An API key: its text, which the client keeps, and its record, which the installation keeps (pure).

Invariant: a record holds the SHA-256 digest of the key's text and nothing from which the text could be restored. A slow
digest would add nothing, because the secret has 256 random bits.
"""

import hashlib
import math
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

from service.errors import UsageError
from telemetry.ids import rfc3339_ms

Scope = Literal["recommend", "events", "items", "users", "erase", "admin"]
KeyState = Literal["valid", "expired", "revoked"]

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
TENANT: Final = "default"
NOTE_LIMIT: Final = 80
KEY_PATTERN: Final = r"rk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}"
ID_PATTERN: Final = r"[0-9a-f]{8}"
KEY_LENGTH: Final = 55
_SECRET_BYTES: Final = 32
_ID: Final = re.compile(ID_PATTERN)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MAX_DURATION_S: Final = 100 * 366 * 86_400
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class ApiKey:
    """The record of one key.

    Attributes:
        id: 8 hexadecimal digits, also part of the key's text; not secret.
        digest: SHA-256 of the key's text.
        scopes: The scopes given at its creation, in the order of `SCOPES`.
        created_at: RFC 3339.
        expires_at: RFC 3339, or None for a key that never expires.
        revoked_at: RFC 3339, or None.
        origins: The only browser origins that may use it; empty for any.
        note: A note of the operator.
        tenant: The tenant whose data it opens.
    """

    id: str
    digest: bytes
    scopes: tuple[Scope, ...]
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    origins: tuple[str, ...] = ()
    note: str | None = None
    tenant: str = TENANT

    @cached_property
    def granted(self) -> frozenset[str]:
        """The scopes and those implied by `admin`."""
        return frozenset(SCOPES if "admin" in self.scopes else self.scopes)

    @cached_property
    def ends_s(self) -> float:
        """The end of the validity in seconds since 1970, or an infinity."""
        if self.revoked_at is not None:
            return -math.inf
        return math.inf if self.expires_at is None else datetime.fromisoformat(self.expires_at).timestamp()

    def state(self, now_s: float) -> KeyState:
        """Return the state at a time in seconds since 1970."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if now_s < self.ends_s else "expired"

    def record(self) -> dict[str, Any]:
        """Return the entry of the key file."""
        return {
            "id": self.id,
            "digest": self.digest.hex(),
            "tenant": self.tenant,
            "scopes": list(self.scopes),
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "revoked_at": self.revoked_at,
            "origins": list(self.origins),
            "note": self.note,
        }

    @classmethod
    def from_record(cls, record: Any) -> "ApiKey":
        """Return the key of an entry of the key file.

        Raises:
            ValueError: The entry is invalid; the message is a clause that names the fault.
        """
        if not isinstance(record, dict):
            raise ValueError("a key must be an object")  # noqa: TRY004 - one error for every fault of a file
        unknown = set(record) - set(_FIELDS)
        if unknown or not all(isinstance(record.get(name), kind) for name, kind in _FIELDS.items()):
            raise ValueError("a key has the wrong fields")
        if not _ID.fullmatch(record["id"]) or not _DIGEST.fullmatch(record["digest"]):
            raise ValueError("a key's id or digest is malformed")
        if record["tenant"] != TENANT:
            raise ValueError(f"key {record['id']} is of another tenant than {TENANT!r}, the only one there is")
        try:
            key = cls(
                id=record["id"],
                digest=bytes.fromhex(record["digest"]),
                scopes=parse_scopes(record["scopes"]),
                created_at=_time(record["created_at"]),
                expires_at=None if record["expires_at"] is None else _time(record["expires_at"]),
                revoked_at=None if record["revoked_at"] is None else _time(record["revoked_at"]),
                origins=tuple(parse_origin(origin) for origin in record["origins"]),
                note=None if record["note"] is None else parse_note(record["note"]),
            )
        except UsageError as error:
            raise ValueError(f"key {record['id']}: {str(error).removesuffix('.')}") from None
        return key


_FIELDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("id", "digest", "tenant", "created_at"), str),
    **dict.fromkeys(("expires_at", "revoked_at", "note"), str | None),
    **dict.fromkeys(("scopes", "origins"), list),
}


def new_key(
    scopes: Sequence[Scope],
    *,
    now_s: float,
    taken: Iterable[str] = (),
    expires_in_s: float | None = None,
    origins: Sequence[str] = (),
    note: str | None = None,
) -> tuple[str, ApiKey]:
    """Generate a key; return its text, which is stored nowhere, and its record.

    `now_s` is in seconds since 1970, `taken` holds the ids of other keys, and `origins` are as `parse_origin` returns
    them.
    """
    known = set(taken)
    while (key_id := secrets.token_hex(4)) in known:
        pass
    text = f"rk_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return text, ApiKey(
        id=key_id,
        digest=digest_of(text),
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        created_at=rfc3339_ms(now_s),
        expires_at=None if expires_in_s is None else rfc3339_ms(now_s + expires_in_s),
        origins=tuple(origins),
        note=note,
    )


def digest_of(text: str) -> bytes:
    """Return the digest of a key's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def id_in(text: str) -> str:
    """Return the id in a key's text, or the text itself if it is no key: operators may give either."""
    return text.split("_", 2)[1] if re.fullmatch(KEY_PATTERN, text) else text


def parse_scopes(names: Iterable[Any]) -> tuple[Scope, ...]:
    """Return scopes in the order of `SCOPES`, each once.

    Raises:
        UsageError: A scope is unknown, or there is none.
    """
    given = list(names)
    for name in given:
        if name not in SCOPES:
            raise UsageError(f"{str(name)[:64]!r} is no scope; the scopes are {', '.join(SCOPES)}.")
    if not given:
        raise UsageError(f"A key needs a scope: {', '.join(SCOPES)}.")
    return tuple(scope for scope in SCOPES if scope in given)


def parse_duration_s(text: str) -> int:
    """Return the seconds of a duration such as 90d.

    Raises:
        UsageError: The text is no duration.
    """
    match = _DURATION.fullmatch(text)
    seconds = 0 if match is None else int(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= _MAX_DURATION_S:
        raise UsageError(f"{text[:32]!r} is no duration; write a number with s, m, h, d or w, such as 90d.")
    return seconds


def parse_origin(text: Any) -> str:
    """Return an origin as browsers send it (RFC 6454 section 6.2): scheme, host and any port but the scheme's own.

    Raises:
        UsageError: The text is no origin.
    """
    refusal = UsageError(
        f"{str(text)[:128]!r} is no origin; write it as browsers send it, such as https://shop.example."
    )
    if (
        not isinstance(text, str)
        or not text.isascii()
        or any(character <= " " or character == "\\" for character in text)
    ):
        raise refusal
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise refusal from None
    host = parts.hostname
    has_more = parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in _DEFAULT_PORTS or not host or has_more or "*" in host:
        raise refusal
    where = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{where}" + ("" if port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{port}")


def parse_note(text: str) -> str:
    """Return a note unchanged.

    Raises:
        UsageError: The note is too long, or does not print as one line.
    """
    if len(text) > NOTE_LIMIT or not text.isprintable():
        raise UsageError(f"A note has {NOTE_LIMIT} printable characters at most.")
    return text


def _time(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time has no offset")
    try:
        return rfc3339_ms(moment.astimezone(UTC).timestamp())
    except OverflowError:
        raise ValueError("a time is outside of the years 1 to 9999") from None
