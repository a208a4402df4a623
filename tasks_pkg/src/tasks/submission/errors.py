"""The ways in which running a Ray job can fail."""


class RayUnavailableError(Exception):
    """The Jobs API did not answer within the limit. Trying again later may help."""


class JobFailedError(Exception):
    """The job failed; running it again would not help, or was tried often enough."""


class JobStoppedError(Exception):
    """Somebody stopped the Ray job."""


class NoSuchJobError(Exception):
    """Ray does not know the id: it was never submitted, or the head has restarted since."""


class AttemptFailedError(Exception):
    """This run failed for a reason that may not affect another run."""
