"""Imported before polars by what runs many times beside itself: one thread for each call.

Polars counts the machine's processors when it is first imported; a call of
:func:`cluster.each` has one of them.
"""

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")
