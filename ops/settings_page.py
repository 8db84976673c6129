"""`python -m ops.settings_page > docs/settings.md`: the page of settings, from the tables in the code."""

from __future__ import annotations

import sys
from typing import Any, Final

from loadbalancer.settings import BalancerSettings
from service.config import Config, describe

TABLES: Final[dict[str, type[Any]]] = {
    "Service, models, logs and telemetry": Config,
    "Balancer and processes": BalancerSettings,
}
_INTRODUCTION: Final = """\
# Settings

Environment variables, read once at start; a value of the wrong kind is refused by name. A test holds this page to the
code; `python -m ops.settings_page > docs/settings.md` writes it anew. Folders are relative to the working directory;
`recollect up` hands them to its children as absolute paths.
"""


def render() -> str:
    """Return the page."""
    lines = [_INTRODUCTION]
    for title, table in TABLES.items():
        lines += [f"## {title}", "", "| variable | default | unit | what it does |", "| --- | --- | --- | --- |"]
        for name, default, unit, sentence in describe(table):
            lines.append(f"| `{name}` | {f'`{default}`' if default else 'none'} | {unit} | {sentence} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(render())
