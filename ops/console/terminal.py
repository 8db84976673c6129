r"""Escaping of everything that a command prints: ids, titles and reasons may hold controls, which terminals obey.

Invariant: a terminal gets no control character except line feeds and tabs, and no invisible character or one that
reverses the direction of writing (Unicode TR 36, section 2.10). They are written as `\uXXXX`, which in JSON is the same
text. Styles and cursor movements pass only through `console` and `unescaped`.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, TextIO, cast

# rich costs a help text a twelfth of its time.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.segment import Segment

# C0, DEL and C1 without tab and line feed; directions, separators, invisible characters, tags, lone surrogates.
_UNSAFE_BUT_BREAKS: Final = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff"
)
_UNSAFE: Final = re.compile(f"[{_UNSAFE_BUT_BREAKS}]")
_UNSAFE_IN_A_CELL: Final = re.compile(f"[\t\n{_UNSAFE_BUT_BREAKS}]")
_BMP: Final = 0x10000


def escape_controls(text: str, *, in_a_cell: bool = False) -> str:
    r"""Return a text with unsafe characters as `\uXXXX`; in a cell of a table these include line feeds and tabs."""
    return (_UNSAFE_IN_A_CELL if in_a_cell else _UNSAFE).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < _BMP:
        return f"\\u{code:04x}"
    # A surrogate pair, as in JSON (RFC 8259, section 7).
    code -= _BMP
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


class EscapingStream:
    """A text stream that escapes what is written to it; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self.wrapped = stream

    def write(self, text: str) -> int:
        """Write a text, escaped; returns its length before."""
        self.wrapped.write(escape_controls(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts, escaped."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


@contextmanager
def escaping_output() -> Iterator[None]:
    """Escape everything written to standard output and standard error."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", EscapingStream(unescaped(stream))) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unescaped(stream: TextIO) -> TextIO:
    """Return the stream behind an `EscapingStream`, for texts without foreign content."""
    return stream.wrapped if isinstance(stream, EscapingStream) else stream


def data_stream() -> TextIO:
    """Return standard output for data: unchanged, unless it is a terminal."""
    return sys.stdout if sys.stdout.isatty() else unescaped(sys.stdout)


class EscapingBytes:
    """A binary stream that escapes UTF-8 lines: standard output for stored bytes if it is a terminal."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        """Write whole characters, escaped; returns the length before."""
        self._file.write(escape_controls(data.decode(errors="replace")).encode())
        return len(data)

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()


def print_error(sentence: str) -> None:
    """Print a sentence as one line on standard error, after the program's name."""
    line = f"recollect: {' '.join(sentence.split())}"
    if sys.stderr.isatty():
        from rich.text import Text

        console(stderr=True).print(Text.assemble((line[:10], "bold red"), line[10:]), soft_wrap=True)
    else:
        sys.stderr.write(f"{line}\n")


def console(*, stderr: bool = False, **options: Any) -> "Console":
    """Return a rich console for bars and styled text: its styles pass, and every text in it is escaped."""
    from rich.console import Console as RichConsole
    from rich.segment import Segment as RichSegment

    class EscapingConsole(RichConsole):
        def _render_buffer(self, buffer: "Iterable[Segment]") -> str:
            return super()._render_buffer(
                one if one.control else RichSegment(escape_controls(one.text), one.style) for one in buffer
            )

    return EscapingConsole(file=unescaped(sys.stderr if stderr else sys.stdout), stderr=stderr, **options)
