"""The page that plots and tables of measurements stand on; pure, but for writing it.

Invariant: a page loads nothing, from no network and no disk, runs nothing, and reads the same in light, in dark, in
print and 400 pixels wide. Every text handed in is escaped here, except `body`, which is HTML already.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final, Literal

from service.errors import UsageError

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1d2733;--soft:#5a6877;--line:#d8dee6;--paper:#fff;--band:#eef2f6;--good:#1f7a34;
--shade:#1d273340;--s0:#2166ac;--s1:#d95f02;--s2:#1b8a6b;--s3:#9a3fb0;--s4:#8c6d00;--s5:#c2185b;--s6:#4a6572;--s7:#6b8e23}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9ef;--soft:#9dabb9;--line:#333e4a;--paper:#12171d;--band:#1c242d;
--shade:#000a;--good:#7ccf82;--s0:#74b3f0;--s1:#ff9d57;--s2:#52c7a5;--s3:#d39ae6;--s4:#e0c257;--s5:#ff86ae;--s6:#a7bcc7;--s7:#b5d36a}}
*{box-sizing:border-box}
body{margin:0;padding:24px 16px 56px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1180px;margin:auto}h1{font-size:23px;line-height:1.25;margin:0 0 6px;overflow-wrap:anywhere}
h2{font-size:18px;margin:36px 0 6px}h3{font-size:14px;margin:0 0 4px;font-weight:600}
p,ul,dl{margin:4px 0;max-width:80ch}ul{padding-left:20px}.soft{color:var(--soft)}.lead{font-size:16px}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,350px),1fr));gap:22px 28px;margin-top:12px}
figure{margin:0;break-inside:avoid;min-width:0}figcaption{color:var(--soft);font-size:13px;line-height:1.4}
.plot{display:block;width:100%;max-width:560px;height:auto;font:11px system-ui,sans-serif}
.plot text{fill:var(--soft)}.plot .name{fill:var(--ink)}.grid{stroke:var(--line);stroke-width:1}
.rule{stroke:var(--line);stroke-width:1;stroke-dasharray:1 4}.line{fill:none;stroke:var(--soft);stroke-width:1.5}
.whisker{fill:none;stroke-width:1.6}.bar{opacity:.85}.solid{fill:currentColor;stroke:var(--paper);stroke-width:1}
.bar{fill:currentColor}.hollow{fill:none;stroke:currentColor;stroke-width:1.3}.whisker{stroke:currentColor}
.s0{color:var(--s0)}.s1{color:var(--s1)}.s2{color:var(--s2)}.s3{color:var(--s3)}
.s4{color:var(--s4)}.s5{color:var(--s5)}.s6{color:var(--s6)}.s7{color:var(--s7)}
.keys{font-size:13px;margin:0 0 4px}.key{white-space:nowrap;margin-right:12px}
.key svg{width:14px;height:14px;vertical-align:-2px;margin-right:4px}
.scroll{overflow-x:auto;margin-top:8px;padding-bottom:2px;background:
linear-gradient(to right,var(--paper) 30px,transparent) 0 0/60px 100% no-repeat local,
linear-gradient(to left,var(--paper) 30px,transparent) 100% 0/60px 100% no-repeat local,
linear-gradient(to right,var(--shade),transparent) 0 0/16px 100% no-repeat scroll,
linear-gradient(to left,var(--shade),transparent) 100% 0/16px 100% no-repeat scroll}
.scroll:focus-visible{outline:2px solid var(--s0)}.scroll::-webkit-scrollbar{height:11px}
.scroll::-webkit-scrollbar-track{background:var(--band);border-radius:6px}
.scroll::-webkit-scrollbar-thumb{background:var(--soft);border-radius:6px;border:2px solid var(--band)}
@supports not selector(::-webkit-scrollbar){.scroll{scrollbar-color:var(--soft) var(--band);scrollbar-width:thin}}
table{border-collapse:separate;border-spacing:0;font-size:13px;
font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);text-align:right;vertical-align:bottom;padding:4px 10px;
border-bottom:1px solid var(--line);white-space:nowrap}
td{text-align:right;padding:4px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
th.left,td.left{text-align:left}
th:first-child,td:first-child{padding-left:0;position:sticky;left:0;background:var(--paper)}
td.best{color:var(--good);font-weight:650}td.sure{font-weight:650}td small{color:var(--soft)}
dt{font-weight:600;float:left;clear:left;margin-right:8px}dd{margin:0 0 4px;overflow-wrap:anywhere}
details{margin-top:8px}summary{cursor:pointer;font-weight:600}
code{font:13px/1.5 ui-monospace,Menlo,Consolas,monospace;background:var(--band);padding:2px 6px;border-radius:4px;
overflow-wrap:anywhere}
@media print{body{padding:0;font-size:12px}.plots{grid-template-columns:1fr 1fr}.scroll{overflow:visible}
table{font-size:10px}th,td{padding:2px 5px;white-space:normal}h2,h3{break-after:avoid}tr{break-inside:avoid}}
"""


@dataclass(frozen=True)
class Cell:
    """What stands in a table besides plain text.

    Attributes:
        text: What it says.
        small: What it says beside that, in smaller letters.
        kind: Why it stands out: "best" of its column, or "sure" not to be chance; empty if it does not.
    """

    text: str
    small: str = ""
    kind: Literal["", "best", "sure"] = ""


def page(title: str, body: Iterable[str]) -> str:
    """Return a whole page.

    Args:
        title: Its heading.
        body: HTML.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{''.join(body)}</main></body></html>\n"
    )


def write(path: Path, text: str) -> None:
    """Write a page.

    Raises:
        UsageError: It cannot be written there.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the page {path} cannot be written: {error.strerror or error}") from error


def require_writable(path: Path) -> None:
    """Find out before minutes of measuring whether a page can be written.

    Raises:
        UsageError: It cannot.
    """
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise UsageError(f"the page {path} cannot be written")


def section(title: str, body: Iterable[str], *, about: str = "") -> str:
    """Return a heading with what belongs to it; nothing if nothing does."""
    inside = "".join(body)
    return f"<h2>{escape(title)}</h2>{paragraph(about, soft=True)}{inside}" if inside else ""


def paragraph(text: str, *, soft: bool = False) -> str:
    """Return a paragraph; nothing of no text."""
    kind = ' class="soft"' if soft else ""
    return f"<p{kind}>{escape(text)}</p>" if text else ""


def listed(texts: Iterable[str]) -> str:
    """Return a list of sentences; nothing of none."""
    points = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{points}</ul>" if points else ""


def named(values: Mapping[str, Any]) -> str:
    """Return names with their values."""
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(said(value))}</dd>" for name, value in values.items())
    return f"<dl>{pairs}</dl>" if pairs else ""


def folded(title: str, body: str, *, is_open: bool = False) -> str:
    """Return what can be folded away under its title; `body` is HTML already."""
    return f"<details{' open' if is_open else ''}><summary>{escape(title)}</summary>{body}</details>"


def plots(figures: Iterable[str]) -> str:
    """Return figures side by side where there is room; nothing of none."""
    inside = "".join(figures)
    return f'<div class="plots">{inside}</div>' if inside else ""


def figure(title: str, plot: str, *, about: str = "", keys: str = "") -> str:
    """Return a plot with its title above and what is to be known of it below; `plot` and `keys` are HTML already."""
    caption = f"<figcaption>{escape(about)}</figcaption>" if about else ""
    return f"<figure><h3>{escape(title)}</h3>{keys}{plot}{caption}</figure>"


def table(heading: Sequence[str], rows: Iterable[Sequence[str | Cell]], *, left: Sequence[int] = (0,)) -> str:
    """Return a table.

    Args:
        heading: The names of the columns.
        rows: The cells, as many in each row.
        left: Columns that begin at the left; numbers do not.
    """
    kinds = [' class="left"' if place in left else "" for place in range(len(heading))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, heading, strict=True))
    body = "".join(f"<tr>{''.join(_cell(cell, place in left) for place, cell in enumerate(row))}</tr>" for row in rows)
    # What scrolls can be reached by the keyboard too.
    frame = '<div class="scroll" tabindex="0" role="region" aria-label="table">'
    return f"{frame}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def data_name(source: str) -> str:
    """Return what a page calls a data set: the names of files and folders, without the path that leads there."""
    if source.partition(":")[0] in {"demo", "archive"}:
        return source
    names = (Path(part.strip()).expanduser() for part in source.split(" + "))
    return " + ".join(name.name or name.resolve().name or str(name) for name in names)


def in_words(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON with its keys as words, without what is null."""
    return {name.replace("_", " "): value for name, value in values.items() if value is not None}


def said(value: Any) -> str:
    """Return a value of JSON as words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {said(part)}" for name, part in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(said, value)) or "none"
    return str(value)


def _cell(cell: str | Cell, is_left: bool) -> str:  # noqa: FBT001
    cell = Cell(cell) if isinstance(cell, str) else cell
    kinds = [kind for kind in ("left" if is_left else "", cell.kind) if kind]
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    small = f" <small>{escape(cell.small)}</small>" if cell.small else ""
    return f"<td{kind}>{escape(cell.text)}{small}</td>"
