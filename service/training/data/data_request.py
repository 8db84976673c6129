"""A request for data: one or more sources, and the options for reading their fields.

Several sources are one dataset: of a pair of user and item the row of the later source stays. The options apply to
every text, JSON and Parquet source; an archive and the demo set have a form of their own and ignore them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

from service.errors import UsageError
from service.training.data.field_values import Dates, printable

STDIN: Final = "-"
# Between the names of several sources.
SEPARATOR: Final = " + "
_ROLE_OF_NAME: Final = {
    "user": "user",
    "item": "item",
    "rating": "rating",
    "timestamp": "timestamp",
    "time": "timestamp",
}
_COLUMNS_FORM: Final = "give --columns as user=NAME,item=NAME,rating=NAME,time=NAME; an empty name leaves a column out."

Decimal: TypeAlias = Literal["auto", "point", "comma"]
_DATES: Final = ("iso", "day-first", "month-first")
_DECIMALS: Final = ("auto", "point", "comma")


@dataclass(frozen=True)
class ReadOptions:
    """How the fields of a source are read."""

    # (role, column) of "user", "item", "rating" or "timestamp", where a column is a name, a number from 1, or empty for
    # none. Other roles are found by the usual names.
    columns: tuple[tuple[str, str], ...] = ()
    dates: Dates = "iso"  # the order of day and month in dates such as 01/02/2021; "iso" reads no such dates
    encoding: str | None = None  # of text files; None for UTF-8, or for that of a byte order mark
    decimal: Decimal = "auto"  # the decimal separator of ratings; "auto" detects it by the first lines

    @property
    def column_of(self) -> dict[str, str]:
        """By role, the column that is asked for."""
        return dict(self.columns)


DEFAULT_OPTIONS: Final = ReadOptions()


@dataclass(frozen=True)
class DataRequest:
    """The sources of a dataset, in order, and how to read them."""

    sources: tuple[str, ...]  # at least one path or specification, see `datasets.read`
    options: ReadOptions = DEFAULT_OPTIONS  # how their fields are read

    def __str__(self) -> str:
        return SEPARATOR.join(map(printable, self.sources))

    @property
    def label(self) -> str:
        """The sources by their names without directories, which differ between machines."""
        return SEPARATOR.join(printable(_name(source)) for source in self.sources)

    @property
    def is_read_once(self) -> bool:
        """Whether a source can be read only once: standard input, or a named pipe."""
        return any(source == STDIN or _is_pipe(source) for source in self.sources)

    def argv(self) -> list[str]:
        """Return the command-line options of this request."""
        options = self.options
        words = [word for source in self.sources for word in ("--data", source)]
        if options.columns:
            words += ["--columns", ",".join(f"{role}={name}" for role, name in options.columns)]
        if options.dates != "iso":
            words += ["--dates", options.dates]
        if options.encoding is not None:
            words += ["--encoding", options.encoding]
        if options.decimal != "auto":
            words += ["--decimal", options.decimal]
        return words


def as_request(data: str | DataRequest) -> DataRequest:
    """Return a request; a text is a single path or specification."""
    return data if isinstance(data, DataRequest) else DataRequest((data,))


def parse(
    sources: Sequence[str],
    *,
    columns: str | None = None,
    dates: str | None = None,
    encoding: str | None = None,
    decimal: str | None = None,
) -> DataRequest:
    """Build a request from the values of --data, --columns (`role=name,…`), --dates, --encoding and --decimal.

    Raises:
        UsageError: An option has an invalid value.
    """
    if not sources:
        raise UsageError("No data is named: give --data.")
    if sum(source == STDIN for source in sources) > 1:
        raise UsageError("Standard input can be read once: give --data - only once.")
    if encoding is not None:
        _require_text_encoding(encoding)
    options = ReadOptions(
        columns=() if columns is None else _parse_columns(columns),
        dates=cast("Dates", _one_of("--dates", dates, _DATES)),
        encoding=encoding,
        decimal=cast("Decimal", _one_of("--decimal", decimal, _DECIMALS)),
    )
    return DataRequest(tuple(sources), options)


def _parse_columns(text: str) -> tuple[tuple[str, str], ...]:
    column_of: dict[str, str] = {}
    for pair in text.split(","):
        name, equals, column = pair.partition("=")
        role = _ROLE_OF_NAME.get(name.strip().lower())
        if not equals or role is None:
            raise UsageError(f"--columns has {pair.strip()!r}: {_COLUMNS_FORM}")
        if role in column_of:
            raise UsageError(f"--columns names {name.strip()} twice.")
        if role in {"user", "item"} and not column.strip():
            raise UsageError(f"--columns leaves out the {role}, which every row needs.")
        column_of[role] = column.strip()
    columns = [column for column in column_of.values() if column]
    for column in columns:
        if columns.count(column) > 1:
            raise UsageError(f"--columns gives the column {column!r} two roles.")
    return tuple(column_of.items())


def _one_of(option: str, value: str | None, choices: tuple[str, ...]) -> str:
    if value is None:
        return choices[0]
    if value not in choices:
        *most, last = choices
        raise UsageError(f"{option} must be {', '.join(most)} or {last}, not {value!r}.")
    return value


def _require_text_encoding(name: str) -> None:
    try:
        # Unlike codecs.lookup, this refuses codecs such as base64, which do not encode text.
        "".encode(name)
    except (LookupError, ValueError):
        raise UsageError(
            f"--encoding names no encoding of text: {name!r}; for example latin-1, cp1252 or utf-16."
        ) from None


def _is_pipe(source: str) -> bool:
    try:
        return Path(source).expanduser().is_fifo()
    except (OSError, ValueError):  # the error is reported when the path is read
        return False


def _name(source: str) -> str:
    if source == STDIN:
        return "standard input"
    if _is_pipe(source):  # resolve() would follow a shell's pipe to a name without meaning
        return f"pipe {Path(source).name}"
    return Path(source).expanduser().resolve().name or source
