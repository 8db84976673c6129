"""Reads the users of MovieLens: `u.user` (100K) and `users.dat` (1M).

Invariant: nothing here ends a run. A file or line that cannot be read becomes a note.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.models.items.record import AttributeValue
from service.training.data.field_values import parse_id
from service.training.data.files.text_file import COMPRESSED_SUFFIXES
from service.training.interactions import UserCatalogue

# The first digits of a ZIP code are an area of the post; whole codes have a few users each.
_ZIP_AREA: Final = 3
# By the code of users.dat (MovieLens 1M, README).
# fmt: off
_OCCUPATIONS: Final = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)
# fmt: on

_Entry = tuple[str, dict[str, AttributeValue]]


def read_users(ratings: Path) -> tuple[UserCatalogue, list[str]]:
    """Read the users beside a MovieLens file of ratings, and return one sentence for each problem."""
    plain_name = ratings.stem if ratings.suffix in COMPRESSED_SUFFIXES else ratings.name
    name, parse = _FORMATS.get(plain_name, ("", _u_user))
    path = ratings.with_name(name) if name else None
    if path is None or not path.is_file():
        return UserCatalogue(), []
    try:
        lines = path.read_bytes().decode("latin-1").splitlines()
    except OSError as error:
        return UserCatalogue(), [f"{path} cannot be read, so there are no attributes of users: {error.strerror}."]
    entries = [parse(line) for line in lines if line.strip()]
    n_broken = entries.count(None)
    notes = [f"{path}: {n_broken} lines are no users and were left out."] if n_broken else []
    return UserCatalogue(dict(entry for entry in entries if entry is not None)), notes


def _u_user(line: str) -> _Entry | None:
    fields = line.split("|")
    return _entry(fields[0], fields[2], fields[1], fields[3], fields[4]) if len(fields) == 5 else None


def _users_dat(line: str) -> _Entry | None:
    fields = line.split("::")
    if len(fields) != 5:
        return None
    code = fields[3]
    is_known = code.isascii() and code.isdigit() and int(code) < len(_OCCUPATIONS)
    return _entry(fields[0], fields[1], fields[2], _OCCUPATIONS[int(code)] if is_known else code, fields[4])


def _entry(id_: str, gender: str, age: str, occupation: str, zip_code: str) -> _Entry | None:
    user_id = parse_id(id_)
    if user_id is None or not (age.isascii() and age.isdigit()):
        return None
    texts = {"gender": gender, "occupation": occupation, "zip_area": zip_code.strip()[:_ZIP_AREA]}
    return user_id, {"age": int(age), **{name: text for name, text in texts.items() if text}}


_FORMATS: Final[dict[str, tuple[str, Callable[[str], _Entry | None]]]] = {
    "u.data": ("u.user", _u_user),
    "ratings.dat": ("users.dat", _users_dat),
}
