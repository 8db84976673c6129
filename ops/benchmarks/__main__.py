"""`python -m ops.benchmarks NAME` runs one benchmark."""

import sys

from ops.benchmarks import cli
from ops.console import foreground

if __name__ == "__main__":
    sys.exit(foreground.run(lambda: cli.main(sys.argv[1:])))
