"""`python -m everturn.cli`, if the command `everturn` is not installed."""

import sys

from everturn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
