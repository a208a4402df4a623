"""Connections to Redis with a time limit, for programs that only look at it."""

from redis import Redis


def connect(url: str, timeout: float) -> Redis:
    """Open a client that never waits longer than ``timeout`` seconds."""
    return Redis.from_url(
        url,
        decode_responses=True,
        # A message in a queue may be any bytes.
        encoding_errors="surrogateescape",
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
    )
