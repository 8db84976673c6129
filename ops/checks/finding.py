"""What a check of `recollect doctor` returns."""

from typing import Literal

Status = Literal["ok", "warn", "fail"]
# `fail`: Recollect does not run, or runs something else than intended; `warn`: it runs at a risk. One sentence each.
Finding = tuple[Status, str]
