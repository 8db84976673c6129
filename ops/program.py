"""How to start the `recollect` program, and a spare of it."""

import sys

# Starts every Python part; a verb follows.
PROGRAM = (sys.executable, "-m", "ops")
# Size of the placeholder argument that makes room for the command line of the part that a spare becomes.
TITLE_BYTES = 512
SPARE = (sys.executable, "-m", "ops.spare", " " * TITLE_BYTES)
