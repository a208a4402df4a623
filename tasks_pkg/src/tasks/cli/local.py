"""``celray run``: a task in this process, without broker or worker."""

COMMANDS = ()
