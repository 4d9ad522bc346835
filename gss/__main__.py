"""`python -m gss` is the command `gss`."""

import sys

from gss.cli import main

if __name__ == "__main__":
    sys.exit(main())
