"""``python -m ray_jobs train``: run one of the jobs of this package, or another's by full name.

The first record goes out before anything heavy is imported, so that the submitter can tell
Ray's start-up from our own.
"""

import sys
import time
from importlib import import_module

from .job import emit, run

if __name__ == "__main__":
    begun = time.time()
    emit({"type": "started", "at": begun})
    name = sys.argv[1]
    run(import_module(name if "." in name else f".{name}", __package__).main, begun)
