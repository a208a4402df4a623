"""``python -m tasks.ops``: the name of :mod:`tasks.operations` before 0.2, kept for one release.

``make update`` and ``make rollback`` run it in containers of either release.
"""

import sys

from tasks.operations.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
