"""The documents: every snippet, path, link, setting and command in them exists, and every term has one meaning."""

import ast
import importlib
import importlib.util
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import typer

from ops import cli
from ops.benchmarks import cli as benchmarks
from ops.console import receipt
from ops.drill.faults.fault_catalogue import FAULTS
from ops.options.environment import TABLES
from service.declared_settings import declared
from service.serving.app import ROUTES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
SETTINGS: Final = {setting.env or "" for table in TABLES.values() for setting in declared(table)}
# Its blocks need a service; tests/integration/test_examples.py runs them against one.
AGAINST_A_SERVICE: Final = DOCS / "client.md"
# Read by tests alone.
TEST_VARIABLES: Final = {"RECOLLECT_TEST_DATA", "RECOLLECT_TEST_LONG"}
BANNED: Final = (
    r"forgotten user",
    r"\brungs?\b",
    r"\bdoubles\b",
    r"\bwhoever\b",
    r"\bsomebody\b",
    r"\bnobody\b",
    r"\bours\b",
    r"\btheirs\b",
)
FOLDERS: Final = ("service/", "telemetry/", "loadbalancer/", "ops/", "tests/", "docs/")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str

    def __repr__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.language}: {self.text.splitlines()[0]}"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(*languages: str) -> list[Block]:
    fence = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    found = [Block(page, m[2], textwrap.dedent(m[3])) for page in PAGES for m in fence.finditer(text_of(page))]
    return [block for block in found if block.language in languages]


def prose_of(page: Path) -> str:
    return re.sub(r"^( *)```.*?^\1```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def code_spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose_of(page))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- words -----------------------------------------------------------------------------------------------------------


def glossary_rows() -> list[list[str]]:
    rows = [
        line.strip("| ").split(" | ") for line in text_of(DOCS / "glossary.md").splitlines() if line.startswith("|")
    ]
    return rows[2:]


def test_glossary_terms_are_unique_and_sorted() -> None:
    """A reader finds a term by the alphabet, once, with a meaning and a place."""
    terms = [row[0].lower() for row in glossary_rows()]
    assert terms == sorted(set(terms))
    assert all(len(row) == 3 for row in glossary_rows())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_use_the_terms_of_the_glossary(page: Path) -> None:
    """A synonym would be a second name for one thing."""
    text = text_of(page)
    assert [match for banned in BANNED for match in re.findall(banned, text, flags=re.IGNORECASE)] == []


def test_every_page_begins_with_its_reader() -> None:
    """The first sentence says for whom the page is."""
    for page in DOCS.rglob("*.md"):
        title, _, first = text_of(page).partition("\n\n")
        assert title.startswith("# "), page
        assert first.startswith("For "), page


def test_the_index_names_every_page() -> None:
    """A page that no index names is read by nobody."""
    for index in (DOCS / "README.md", DOCS / "decisions" / "README.md"):
        linked = set(re.findall(r"\]\(([a-z0-9-]+\.md)\)", text_of(index)))
        assert linked == {page.name for page in index.parent.glob("*.md")} - {"README.md"}


def test_the_readme_is_short() -> None:
    """At most 700 words besides its snippets."""
    assert len(prose_of(ROOT / "README.md").split()) <= 700


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    """A release has its entry before it is made."""
    version = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["version"]
    assert re.findall(r"^## (\S+)", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)[0] == version


def test_every_promise_of_the_drill_is_listed() -> None:
    """R1 to R23, each once, in order; a row that the drill runs has a fault in its catalogue."""
    rows = re.findall(r"^\| (R\d+) \| .* \| (drill)?", text_of(DOCS / "promises.md"), re.MULTILINE)
    assert [row for row, _ in rows] == [f"R{number}" for number in range(1, 24)]
    assert {row for row, drill in rows if drill} == {fault.row for fault in FAULTS}


# --- places ----------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_resolve(page: Path) -> None:
    """Every relative link leads to a file, and its anchor to a heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_exist(page: Path) -> None:
    """A path in backticks is a file or folder of the repository; a file name alone is that of some file."""
    names = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    for span in code_spans(page):
        path = span.partition("::")[0]
        if path.startswith(FOLDERS) and not re.search(r"[ <…*{]", path):
            assert (ROOT / path).exists(), span
        elif re.fullmatch(r"[a-z_0-9]+\.py", span):
            assert span in names, span


def test_tests_named_by_the_pages_exist() -> None:
    """A promise is shown by a test of that name."""
    for page in PAGES:
        for span in code_spans(page):
            path, separator, test = span.partition("::")
            if separator and path.endswith(".py"):
                assert re.search(rf"def {test}\b", text_of(ROOT / path)), span


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_names_exist(page: Path) -> None:
    """A dotted name in backticks that begins with a package of the repository can be imported."""
    for span in code_spans(page):
        if re.fullmatch(r"(service|telemetry|loadbalancer|ops)(\.[a-zA-Z_]\w*)+", span):
            resolve(span)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_exist(page: Path) -> None:
    """Every variable is in the tables; one that ends in an underscore is a prefix."""
    for name in re.findall(r"RECOLLECT_[A-Z0-9_]+", text_of(page)):
        known = any(setting.startswith(name) for setting in SETTINGS) if name.endswith("_") else name in SETTINGS
        assert known or name in TEST_VARIABLES, name


def test_the_code_cites_documents_that_exist() -> None:
    """A page that a docstring or a message names is in the repository."""
    for folder in FOLDERS[:4]:
        for path in (ROOT / folder).rglob("*.py"):
            for cited in re.findall(r"\b(?:docs/)?[A-Za-z/-]*\w+\.md\b(?!\.)", text_of(path)):
                assert (ROOT / cited).exists(), f"{name_of(path)}: {cited}"


def test_the_architecture_names_every_folder() -> None:
    """A folder without a sentence is a drawer."""
    named = set(code_spans(DOCS / "architecture.md"))
    folders = {path.parent for folder in FOLDERS[:4] for path in (ROOT / folder).rglob("*.py")}
    assert {f"{name_of(folder)}/" for folder in folders} - named == set()


def test_classes_exist() -> None:
    """A name such as `ModelSnapshot` in backticks is a class; notes of telemetry are logged under their class names."""
    sources = "\n".join(text_of(path) for folder in FOLDERS[:4] for path in (ROOT / folder).rglob("*.py"))
    for page in PAGES:
        for span in code_spans(page):
            if re.fullmatch(r"([A-Z][a-z]+){2,}", span):
                assert re.search(rf"^class {span}\b", sources, re.MULTILINE), (name_of(page), span)


# --- snippets --------------------------------------------------------------------------------------------------------


def resolve(dotted: str) -> object:
    """Import the longest prefix that is a module, then look the rest up in it."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


def check_python(text: str) -> None:
    """Resolve every import, and every attribute of what was imported."""
    tree = ast.parse(text)
    imported: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update({alias.asname or alias.name: resolve(alias.name) for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.update({a.asname or a.name: resolve(f"{node.module}.{a.name}") for a in node.names})
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            assert hasattr(imported[node.value.id], node.attr), ast.unparse(node)


def skip_without_torch(block: Block) -> None:
    """Skip a block that needs what `make deep` installs."""
    if "service.training.deep" in block.text or "service.training.networks" in block.text:
        pytest.importorskip("torch")


@pytest.mark.parametrize("block", blocks("python"), ids=repr)
def test_python_blocks_name_what_exists(block: Block) -> None:
    """Modules and their attributes."""
    skip_without_torch(block)
    check_python(block.text)


@pytest.mark.parametrize("block", [block for block in blocks("python") if block.page != AGAINST_A_SERVICE], ids=repr)
def test_python_blocks_run(block: Block) -> None:
    """As they stand."""
    skip_without_torch(block)
    exec(compile(block.text, str(block.page), "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize("block", blocks("json"), ids=repr)
def test_json_blocks_parse(block: Block) -> None:
    """An ellipsis outside of a string stands for what is left out."""
    rest = re.sub(r'("(?:[^"\\]|\\.)*")|,?\s*…', lambda match: match[1] or "", block.text).strip()
    while rest:
        _, end = json.JSONDecoder().raw_decode(rest)
        rest = rest[end:].strip()


def commands(text: str) -> Iterator[list[str]]:
    """Yield each simple command of a shell snippet as its words, without assignments before it."""
    text = re.sub(r"(^|\s)#[^\n]*", "", text.replace("\\\n", " "))
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|;&()<>\n")
    lexer.whitespace, lexer.commenters = " \t", ""
    words: list[str] = []
    for token in [*lexer, "\n"]:
        if set(token) <= set("|;&()\n"):
            if words:
                yield words
            words = []
        elif words or not re.match(r"[A-Z_]+=|export$", token):
            words.append(token)


@cache
def programs() -> dict[str, Any]:
    """Return the commands of the console script and of the benchmarks; their class is private to typer."""
    return {
        "recollect": typer.main.get_command(cli.application()),
        "ops.benchmarks": typer.main.get_command(benchmarks.app),
    }


def check_options(program: Any, words: list[str], line: list[str]) -> None:
    """Follow the verbs, then look every option up."""
    words = list(words)
    while hasattr(program, "commands") and words and not words[0].startswith("-"):
        verb = words.pop(0)
        assert verb in program.commands, line
        program = program.commands[verb]
    known = {option for parameter in program.params for option in [*parameter.opts, *parameter.secondary_opts]}
    known |= {"--help", "--version"}
    for word in words:
        if word.startswith("-") and word != "-" and not re.match(r"-\d", word):
            assert word.partition("=")[0] in known, line


def check_command(words: list[str]) -> None:
    """Check what this repository defines: verbs, options, targets, modules, test files, routes."""
    program, *rest = words
    if Path(program).name == "recollect":
        check_options(programs()["recollect"], rest, words)
    elif program == "make":
        targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
        variables = set(re.findall(r"^([A-Z_]+) \?=", text_of(ROOT / "Makefile"), re.MULTILINE))
        assert {word for word in rest if "=" not in word} <= targets, words
        assert {word.partition("=")[0] for word in rest if "=" in word} <= variables, words
    elif Path(program).name.startswith("python") and rest[:1] == ["-m"]:
        assert importlib.util.find_spec(rest[1]) is not None, words
        if rest[1] in programs() or rest[1] == "ops":
            check_options(programs()["recollect" if rest[1] == "ops" else rest[1]], rest[2:], words)
    elif Path(program).name.startswith("python") and rest[:1] == ["-c"]:
        check_python(rest[1])
    elif Path(program).name == "pytest":
        assert all((ROOT / word).exists() for word in rest if word.startswith("tests/")), words
    elif program == "curl":
        for url in (word for word in rest if word.startswith("http://127.0.0.1")):
            path = re.sub(r"^http://[^/]+|\?.*", "", url)
            patterns = [re.sub(r"\{[^}]*\}", "[^/]+", route.path) for route in ROUTES]
            assert any(re.fullmatch(pattern, path) for pattern in patterns), words


@pytest.mark.parametrize("block", blocks("sh"), ids=repr)
def test_shell_blocks_name_what_exists(block: Block) -> None:
    """Verbs and options of `recollect`, targets of make, modules, test files and routes."""
    for words in commands(block.text):
        check_command(words)


@pytest.mark.parametrize("block", blocks("text"), ids=repr)
def test_sessions_name_what_exists(block: Block) -> None:
    """Lines of a transcript that begin with a prompt are commands."""
    for line in re.findall(r"^\$ (.*)$", block.text, re.MULTILINE):
        for words in commands(line if line.count('"') % 2 == 0 else f'{line}"'):
            check_command(words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_prose_exist(page: Path) -> None:
    """A command in backticks, where brackets mark what may be left out and capitals what is filled in."""
    for span in code_spans(page):
        if re.match(r"(recollect|make|python -m|curl) ", span) and "VERB" not in span and "…`" not in span:
            for words in commands(re.sub(r"[\[\]…]", "", span)):
                check_command(words)


def test_the_transcript_of_the_audit_has_its_columns() -> None:
    """And the table below explains each of them."""
    page = text_of(DOCS / "archive.md")
    heading = page.partition("$ recollect audit\n")[2].partition("\n")[0].split()
    assert heading == list(receipt._HEADING)
    explained = re.findall(r"^\| ([a-z]+) \|", page.partition("| column |")[2], re.MULTILINE)
    assert explained[: len(heading) - 3] == heading[3:]
