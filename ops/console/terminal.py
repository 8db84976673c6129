r"""What commands print, made safe: ids, titles and reasons are texts of strangers, and terminals obey what is in them.

Invariant: whatever a command prints, a terminal gets no control character but line feeds and tabs, and none that turns
the direction of writing around or is invisible (Unicode TR 36, section 2.10). They are written as `\uXXXX`, which in
JSON is the same text. Only styles and cursor movements of our own pass, through `console` and `raw`.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final, TextIO, cast

from rich.console import Console
from rich.segment import Segment

# Controls (C0, DEL, C1), marks of direction, what separates lines or is not seen, tags, and lone surrogates.
_UNSAFE_BUT_BREAKS: Final = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff"
)
_UNSAFE: Final = re.compile(f"[{_UNSAFE_BUT_BREAKS}]")
_UNSAFE_IN_A_CELL: Final = re.compile(f"[\t\n{_UNSAFE_BUT_BREAKS}]")
_BMP: Final = 0x10000


def escaped(text: str, *, in_a_cell: bool = False) -> str:
    """Return a text as it may be shown.

    Args:
        text: Any text.
        in_a_cell: Whether line feeds and tabs are not allowed either.
    """
    return (_UNSAFE_IN_A_CELL if in_a_cell else _UNSAFE).sub(_written, text)


def _written(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < _BMP:
        return f"\\u{code:04x}"
    # As JSON has it: two surrogates (RFC 8259, section 7).
    code -= _BMP
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


class Guarded:
    """A text stream that escapes what is written to it; everything else is the stream's own.

    Args:
        stream: Where the text goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self.raw_stream = stream

    def write(self, text: str) -> int:
        """Write a text, escaped; returns the length of what was handed in."""
        self.raw_stream.write(escaped(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts, escaped."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw_stream, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Guard standard output and standard error."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", Guarded(raw(stream))) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def raw(stream: TextIO) -> TextIO:
    """Return the stream behind a guard: for texts of our own making alone."""
    return stream.raw_stream if isinstance(stream, Guarded) else stream


def data_out() -> TextIO:
    """Return where data goes that is not ours to change: standard output as it is, guarded if that is a terminal."""
    return sys.stdout if sys.stdout.isatty() else raw(sys.stdout)


class EscapedBytes:
    """A binary stream that escapes UTF-8 lines: what standard output is for stored bytes if it is a terminal.

    Args:
        file: Where the bytes go.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        """Write whole characters, escaped; returns the length of what was handed in."""
        self._file.write(escaped(data.decode(errors="replace")).encode())
        return len(data)

    def flush(self) -> None:
        """Flush what is behind."""
        self._file.flush()


def console(*, stderr: bool = False, **options: Any) -> Console:
    """Return a console for tables and bars: its styles pass, and every text in it is escaped.

    Args:
        stderr: Whether it is on standard error.
        options: As `rich.console.Console` takes them.
    """
    from rich.console import Console as RichConsole
    from rich.segment import Segment as RichSegment

    class EscapingConsole(RichConsole):
        def _render_buffer(self, buffer: Iterable[Segment]) -> str:
            return super()._render_buffer(
                segment if segment.control else RichSegment(escaped(segment.text), segment.style) for segment in buffer
            )

    return EscapingConsole(file=raw(sys.stderr if stderr else sys.stdout), stderr=stderr, **options)
