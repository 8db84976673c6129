"""The check of API keys before every handler that has a scope.

Invariant: with keys, a request passes only with a key that is valid now, has the scope and, if the key names origins,
comes from one of them or has no Origin header. Without keys every request passes.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import hdrs
from multidict import istr

from service.errors import Forbidden, Unauthorized
from service.security.api_key import ApiKey, Scope
from service.security.keyring import Keyring

API_KEY_HEADER: Final = istr("X-API-Key")
_AUTHORIZATION: Final = hdrs.AUTHORIZATION
_ORIGIN: Final = hdrs.ORIGIN
_SCHEME: Final = "bearer "
_REALM: Final = 'Bearer realm="recollect"'


class Gate:
    """The check of one replica; `clock_s` returns seconds since 1970."""

    __slots__ = ("_clock_s", "keyring")

    def __init__(self, keyring: Keyring | None = None, clock_s: Callable[[], float] = time.time) -> None:
        self.keyring = keyring
        """The keys; None if no key was ever made. Replaced by `service.security.key_watch`, and never by None."""
        self._clock_s = clock_s

    def __repr__(self) -> str:
        return f"<Gate {'open' if self.keyring is None else self.keyring}>"

    def admit(self, headers: Mapping[str, str], scope: Scope) -> str | None:
        """Check the headers of a request, a case-insensitive mapping; return the id of its key, or None without keys.

        Raises:
            Unauthorized: It has no valid key.
            Forbidden: The key lacks the scope, or is not for this origin.
        """
        keyring = self.keyring
        if keyring is None:
            return None
        text = headers.get(API_KEY_HEADER)
        if text is None:
            text = headers.get(_AUTHORIZATION)
            if text is None or text[:7].lower() != _SCHEME:
                raise Unauthorized(
                    "This needs an API key: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
                    challenge=_REALM,
                )
            # One space or more (RFC 9110 section 11.4).
            text = text[7:].lstrip(" ")
        key = keyring.find(text)
        if key is None or self._clock_s() >= key.ends_s:
            raise _unauthorized(key)
        if scope not in key.granted:
            raise Forbidden(
                f"This needs a key with the scope {scope}; key {key.id} has {', '.join(key.scopes)}.",
                challenge=f'{_REALM}, error="insufficient_scope", scope="{scope}"',
            )
        if key.origins and headers.get(_ORIGIN, key.origins[0]) not in key.origins:
            raise Forbidden(f"Key {key.id} is not valid for pages of this origin.")
        return key.id


def _unauthorized(key: ApiKey | None) -> Unauthorized:
    if key is None:
        reason = "This installation does not have the key."
    elif key.revoked_at is not None:
        reason = f"Key {key.id} was revoked at {key.revoked_at}."
    else:
        reason = f"Key {key.id} expired at {key.expires_at}."
    return Unauthorized(reason, challenge=f'{_REALM}, error="invalid_token"')
