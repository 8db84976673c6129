"""The documents: one word, one meaning."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
GENERATED = {"settings.md"}
BANNED = (r"forgotten user", r"\brungs?\b", r"\bdoubles\b", r"\bdoubled\b")


def glossary_terms() -> list[str]:
    rows = re.findall(r"^\| ([^|]+) \|", GLOSSARY.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return rows[2:]


def test_glossary_terms_are_unique_and_sorted() -> None:
    """A reader finds a term by the alphabet, once."""
    terms = [term.lower() for term in glossary_terms()]
    assert terms == sorted(set(terms))


@pytest.mark.parametrize("page", [GLOSSARY], ids=lambda page: page.name)
def test_pages_use_the_terms_of_the_glossary(page: Path) -> None:
    """A synonym would be a second name for one thing."""
    text = page.read_text(encoding="utf-8")
    assert [match for banned in BANNED for match in re.findall(banned, text, flags=re.IGNORECASE)] == []
