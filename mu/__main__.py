"""`python -m mu`: the same as the command `mu`."""

import sys

from mu.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
