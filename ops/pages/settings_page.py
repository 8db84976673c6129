"""`python -m ops.pages.settings_page > docs/settings.md`: the page of settings, from the tables in the code."""

import sys
from typing import Final

from ops.options.environment import TABLES
from service.declared_settings import Declared, declared

_INTRODUCTION: Final = """\
# Settings

Variables of the environment, or lines of a file `recollect.toml`; read once at start. A name that is not in the tables
below is refused, with the one that may be meant; so is a value of the wrong kind or outside its bounds. A test holds
this page to the code; `python -m ops.pages.settings_page > docs/settings.md` writes it anew.

## recollect.toml

In the file a setting is called as its variable, without `RECOLLECT_` and in small letters. Relative paths in it are
relative to the file's folder, those in the environment to the working directory:

```toml
home = "/srv/recollect"
redis_url = "redis://10.0.0.5:6379/0"
replicas = 4
```

A command uses the file that `RECOLLECT_FILE` names, else that of the folder it is started in, or of the nearest one
above it; else, in a checkout, the one of the checkout. A file that is found and belongs to another user than the one
who runs the command, root or the owner of the code is refused. The environment wins over the file, setting by setting;
with `RECOLLECT_HOME` in the environment, the file's `logs` does not count either.

**Where state lives** is thus the same for every command, whatever folder it is started in: `RECOLLECT_HOME`, else
`home` of the file, else `recollect` in `XDG_STATE_HOME`, else `~/.local/state/recollect`. The checkout's own file says
`var` and `logs`, beside it. `recollect doctor` tells which file counts; `up`, `train` and `doctor` tell where state
lives.

"""


def render() -> str:
    """Return the page."""
    lines = [_INTRODUCTION]
    for title, table in TABLES.items():
        lines += [f"## {title}", "", "| variable | default | unit | what it does |", "| --- | --- | --- | --- |"]
        for setting in declared(table):
            lines.append(f"| `{setting.env}` | {_default(setting)} | {setting.unit} | {setting.doc} |")
        lines.append("")
    return "\n".join(lines)


def _default(setting: Declared) -> str:
    if setting.default is None:
        return "none"
    return f"`{str(setting.default).lower() if setting.kind is bool else setting.default}`"


if __name__ == "__main__":
    sys.stdout.write(render())
