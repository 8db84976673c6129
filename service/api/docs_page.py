"""The page at /docs and its security headers.

Script and style are inline and allowed by their hashes (CSP Level 3, section 8.4). Nothing else can run in the page,
and no other site can frame it.
"""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Final


@cache
def page() -> bytes:
    """Return the page."""
    return files("service.api").joinpath("docs.html").read_bytes()


def _hash_of(tag: str) -> str:
    match = re.search(rf"<{tag}>(.*?)</{tag}>".encode(), page(), re.DOTALL)
    if match is None:
        raise ValueError(f"The page at /docs has no {tag}.")
    return "'sha256-" + base64.b64encode(hashlib.sha256(match[1]).digest()).decode() + "'"


PAGE_HEADERS: Final = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash_of('script')}",
            f"style-src {_hash_of('style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
