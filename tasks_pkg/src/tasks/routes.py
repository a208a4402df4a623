"""Which task goes to which queue: the one list of the tasks that exist.

``ROUTES`` stays a plain literal. The preflight reads this file with
:func:`ast.literal_eval`, before anything of ours is installed on the host.
"""

ROUTES: dict[str, str] = {
    "tasks.simple_tasks.ping": "default",
    "tasks.ml_tasks.distributed_training": "ml",
}
