"""``python -m graphunlearn``: the command line."""

import sys

from graphunlearn.cli import main

if __name__ == "__main__":
    sys.exit(main())
