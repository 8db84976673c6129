"""How to start the `recollect` program: its argv, and that of a spare."""

import sys

# The program that runs every Python part; a verb follows.
PROGRAM = (sys.executable, "-m", "ops")
# Width in bytes of the placeholder argument that gives a spare room to show the command line of the part it becomes.
TITLE_BYTES = 512
# The program that preloads and waits to become any part.
SPARE = (sys.executable, "-m", "ops.spare", " " * TITLE_BYTES)
