"""Page tokens: digests of the items that the pages before have shown, kept by the client.

A token holds a digest of each item of the pages before, so a later page repeats none of them, whichever replica makes
it, whatever model it has and whatever the user did in between. A checksum binds it to the list's user, or item, and
finds damage. A forged token can only bar items from the list of the caller that sends it. Two ids share a digest once
in 2^40 pairs; then a page leaves out an item that was not shown.

    version (1 byte) · offset of the first page (2) · digests (5 each) · CRC-32 (4)
"""

import binascii
import hashlib
import zlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from service.api import wire

_VERSION: Final = b"\x01"
_DIGEST_BYTES: Final = 5
_CHECKSUM_BYTES: Final = 4
_HEAD_BYTES: Final = 3
_MOST_DIGESTS: Final = 1 << 15
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


class Page(NamedTuple):
    """Where a page begins.

    Attributes:
        offset: How many of the best items the first page skipped.
        shown: The digests of all items of the pages before, one after the other.
    """

    offset: int = 0
    shown: bytes = b""

    @property
    def n_shown(self) -> int:
        """The number of items on the pages before."""
        return len(self.shown) // _DIGEST_BYTES

    @property
    def place(self) -> int:
        """The place of the page's first item in the whole list, from 0."""
        return self.offset + self.n_shown

    def token_of_next(self, kind: str, item_ids: Iterable[str]) -> str | None:
        """Return the token of the page after this one.

        Args:
            kind: `ListRequest.kind`.
            item_ids: The items of this page.

        Returns:
            None if the list would exceed its limit.
        """
        shown = self.shown + b"".join([_DIGESTS[item_id] for item_id in item_ids])
        if len(shown) > wire.PAGES_LIMIT * _DIGEST_BYTES:
            return None
        content = b"%b%b%b" % (_VERSION, self.offset.to_bytes(2, "big"), shown)
        text = binascii.b2a_base64(content + _checksum(kind, content), newline=False)
        return text.translate(_URL_SAFE, b"=").decode()


def read(token: str, kind: str, offset: int) -> Page:
    """Return the page of a token.

    Args:
        kind: `ListRequest.kind`.
        offset: The request's own offset: 0, or again that of the first page.

    Raises:
        Invalid: The token is damaged, of another list or of another version of the service.
    """
    try:
        padded = token.encode("ascii").translate(_STANDARD) + b"=" * (-len(token) % 4)
        raw = binascii.a2b_base64(padded, strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise wire.invalid_field("page_token", "is not a token of this service") from None
    content, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    shown = content[_HEAD_BYTES:]
    if content[:1] != _VERSION or len(content) < _HEAD_BYTES or len(shown) % _DIGEST_BYTES:
        raise wire.invalid_field("page_token", "is not a token of this service")
    if checksum != _checksum(kind, content):
        raise wire.invalid_field("page_token", "was made for another list, or is damaged")
    page = Page(int.from_bytes(content[1:_HEAD_BYTES], "big"), shown)
    if offset not in (0, page.offset):
        raise wire.invalid_field("offset", f"is {offset}, and the page token continues a list with {page.offset}")
    return page


def is_shown(page: Page, item_ids: Iterable[str]) -> list[bool]:
    """Return for each item whether a page before has it."""
    shown = {page.shown[at : at + _DIGEST_BYTES] for at in range(0, len(page.shown), _DIGEST_BYTES)}
    return [_DIGESTS[item_id] in shown for item_id in item_ids]


class _Digests(dict[str, bytes]):
    """The digests of ids, kept because lists are made of the same few items again and again."""

    def __missing__(self, item_id: str) -> bytes:
        if len(self) >= _MOST_DIGESTS:
            self.clear()
        digest = self[item_id] = hashlib.blake2b(item_id.encode(), digest_size=_DIGEST_BYTES).digest()
        return digest


_DIGESTS: Final = _Digests()


def _checksum(kind: str, content: bytes) -> bytes:
    return zlib.crc32(kind.encode(), zlib.crc32(content)).to_bytes(_CHECKSUM_BYTES, "big")
