"""`python -m mu`: the same as the command `mu`."""

import sys

from mu.cli.main import main

if __name__ == "__main__":
    if not sys.flags.safe_path:
        sys.path.pop(0)  # the working directory, whose tasks.py would hide ours
    sys.exit(main())
