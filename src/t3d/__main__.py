"""``python -m t3d``."""

import sys

from t3d.cli import main

if __name__ == "__main__":
    sys.exit(main())
