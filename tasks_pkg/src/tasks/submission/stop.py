"""``python -m tasks.submission.stop TASK_ID``: stop what a task has running on Ray.

A separate process keeps Ray out of the Celery worker's main process.
"""

import sys

from tasks.credentials import ConfigurationError
from tasks.settings import get_settings
from tasks.submission.errors import RayUnavailableError
from tasks.submission.ray import RayJobs


def main(arguments: list[str]) -> int:
    """Stop the jobs of the task that ``arguments`` names; return the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m tasks.submission.stop TASK_ID\n")
        return 64
    try:
        for name in RayJobs(get_settings().ray_address).stop(arguments[0]):
            sys.stdout.write(f"stopped {name}\n")
    except (RayUnavailableError, ConfigurationError) as error:
        sys.stderr.write(f"{error}\n")
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
