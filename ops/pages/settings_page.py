"""`python -m ops.pages.settings_page > docs/settings.md`: the page of settings, from the tables in the code."""

import sys

from ops.options.environment import TABLES
from ops.pages import page
from service.declared_settings import declared


def render() -> str:
    """Return the page as Markdown."""
    return page.render("settings.md.j2", tables={title: declared(table) for title, table in TABLES.items()})


if __name__ == "__main__":
    sys.stdout.write(render())
