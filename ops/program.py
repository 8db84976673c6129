"""The argv of the `recollect` program and of its spares."""

import sys

# The argv of every Python part, before its verb.
PROGRAM = (sys.executable, "-m", "ops")
# Size of a spare's placeholder argument: room for the command line of the part that it becomes.
TITLE_BYTES = 512
SPARE = (sys.executable, "-m", "ops.spare", " " * TITLE_BYTES)
