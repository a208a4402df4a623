"""Limit polars to one thread; import this before polars in functions that run in parallel.

Polars counts the machine's processors when it is first imported; a call of :func:`cluster.each` has
only one of them.
"""

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")
