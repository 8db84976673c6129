"""Cells of CSV that a spreadsheet takes for text or for a number, never for a formula (pure).

A cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return is a formula to Excel, LibreOffice and Google
Sheets, and may fetch addresses or run commands (OWASP, "CSV Injection"). It gets an apostrophe before it, which they
take for "this is text". A number such as -1.5 stays one.
"""

import re
from typing import Any, Final

# Their wide forms (U+FF0B and so on) are taken for the same in East Asian settings.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_MARK: Final = "'"


def cell(value: Any) -> Any:
    """Return what is written for a value.

    Args:
        value: A text, a number, or None.
    """
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return _MARK + value
    return value
