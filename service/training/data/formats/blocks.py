"""A text file in blocks of whole lines, so that memory does not grow with the file.

Invariant: the blocks in order are the file's bytes, and each but the last ends with a newline.
"""

from collections.abc import Iterator
from typing import Final

from service.errors import DataError
from service.training.data.files.text_file import Readable

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LINE_LIMIT_BYTES: Final = 256 << 20
_NEWLINE: Final = b"\n"


def blocks(file: Readable, name: str, size_bytes: int) -> Iterator[bytes]:
    """Read a file.

    Args:
        file: The text.
        name: The file, for messages.
        size_bytes: About how large a block is; a file that fits into one block is one.

    Yields:
        One block, at least one byte.

    Raises:
        DataError: A line is too long for a line.
        OSError: The file cannot be read.
    """
    rest, following = b"", file.read(size_bytes)
    while following:
        block, following = following, file.read(size_bytes)
        cut = block.rfind(_NEWLINE) + 1 if following else len(block)
        if cut:
            yield rest + block[:cut]
            rest = block[cut:]
        else:
            rest += block
            if len(rest) > _LINE_LIMIT_BYTES:
                raise DataError(f"{name} is no text of rows: it has a line of over {_LINE_LIMIT_BYTES >> 20} MiB")
    if rest:
        yield rest
