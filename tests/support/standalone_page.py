"""An assertion that a page is well formed and needs no other file."""

import re
from html.parser import HTMLParser

_EMPTY = {"meta", "br", "hr", "img", "input", "link"}


class _Structure(HTMLParser):
    """Collects tags, and fails where they do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.titles: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "title":
            self.titles.append(data)


def assert_standalone(page: str) -> _Structure:
    """Assert that a page is well formed and loads, runs and overdraws nothing; return its structure."""
    structure = _Structure()
    structure.feed(page)
    structure.close()
    assert structure.open == []
    assert not {"script", "link", "img", "iframe", "object", "foreignobject"} & set(structure.tags)
    for name, value in structure.attributes:
        assert not name.startswith("on"), f"{name} runs something"
        assert name not in {"href", "src", "xlink:href", "style"}, f"{name} may load something"
        assert not {"nan", "inf", "-inf"} & set(re.split(r"[ ,MHhvl()]", value)), f"{name}={value!r} is no coordinate"
    assert not re.search(r"https?:|url\(|@import", page)
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport"' in page
    return structure
