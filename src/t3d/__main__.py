"""``python -m t3d``."""

import sys

from t3d.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
