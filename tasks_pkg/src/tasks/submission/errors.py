"""How running a Ray job can fail."""


class RayUnavailableError(Exception):
    """The Jobs API did not answer for longer than allowed. Trying again later is right."""


class JobFailedError(Exception):
    """The job failed, and running it again would not help, or has been tried often enough."""


class JobStoppedError(Exception):
    """Somebody stopped the Ray job."""


class NoSuchJobError(Exception):
    """Ray does not know the id: never submitted, or its head has been restarted since."""


class AttemptFailedError(Exception):
    """This run failed for a reason that another run may not meet."""
