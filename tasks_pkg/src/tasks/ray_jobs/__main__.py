"""``python -m ray_jobs train``: run one of the jobs of this package, or another's by full name.

The first record is sent before any import, so that the submitter can tell Ray's start-up time from
the job's own: the imports of a job's frame take as long as Python's start.
"""

import os
import sys
import time
from importlib import import_module

from . import MARKER

if __name__ == "__main__":
    begun = time.time()
    os.write(1, f'{MARKER}{{"type":"started","at":{begun}}}\n'.encode())
    run = import_module(".job", __package__).run
    if "RAY_ADDRESS" in os.environ:
        # The Jobs API starts jobs from an actor with no CPU. Ray gives such an actor one thread,
        # and XGBoost takes no more. The number that a job uses is decided where it reserves CPUs.
        os.environ.pop("OMP_NUM_THREADS", None)
    name = sys.argv[1]
    run(import_module(name if "." in name else f".jobs.{name}", __package__).main, begun)
