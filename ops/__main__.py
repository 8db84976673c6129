"""`python -m ops VERB` is `recollect VERB`."""

from ops.cli import main

if __name__ == "__main__":
    main()
