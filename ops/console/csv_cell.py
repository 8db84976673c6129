"""Cells of CSV that no spreadsheet evaluates as a formula (pure).

A cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return is a formula to Excel, LibreOffice and Google
Sheets, and may fetch addresses or run commands (OWASP, "CSV Injection"). An apostrophe before it marks it as text. A
number such as -1.5 stays a number.
"""

import re
from typing import Any, Final

# East Asian settings treat the wide forms (U+FF0B and so on) alike.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def csv_cell(value: Any) -> Any:
    """Return what is written for a text, a number, or None."""
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
