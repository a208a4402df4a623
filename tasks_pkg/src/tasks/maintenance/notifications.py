"""Send a message to one of the configured channels, once."""

import hashlib
import logging
import re
from typing import cast

from redis import Redis

from tasks.broker.redis.scripts import FORGET
from tasks.settings import Settings

KEY_PREFIX = "celray:notify:"

#: Loggers whose records may contain part of a channel's URL.
_TALKATIVE = ("apprise", "urllib3", "requests")
_STATUS_CODE = re.compile(r"error=(\d{3})")


class DeliveryError(Exception):
    """The service behind a channel rejected the message; trying again may help."""


class ChannelError(Exception):
    """A channel's URL is wrong; trying again does not help."""


class Once:
    """A mark in Redis that a message is being sent, or was sent, in this time window.

    Args:
        client: a client of the Redis that holds the mark.
        settings: provide the window's length in seconds; 0 turns the marks off.
        channel: the channel's name.
        message: the text.
        owner: the sender's task id, so that a redelivered task does not count as a duplicate.
    """

    def __init__(
        self, client: Redis, settings: Settings, channel: str, message: str, owner: str
    ) -> None:
        self._client = client
        self._seconds = settings.notify_dedupe_seconds
        self._owner = owner
        digest = hashlib.sha256(f"{channel}\0{message}".encode()).hexdigest()
        self.key = KEY_PREFIX + digest

    def taken(self) -> bool:
        """Set the mark; return False if another task has set it already."""
        if not self._seconds:
            return True
        if self._client.set(self.key, self._owner, nx=True, ex=self._seconds):
            return True
        return cast("str | None", self._client.get(self.key)) == self._owner

    def release(self) -> None:
        """Remove the mark, so that a later attempt may send."""
        if self._seconds:
            self._client.register_script(FORGET)(keys=[self.key], args=[self._owner])


def deliver(url: str, channel: str, message: str) -> None:
    """Pass ``message`` to apprise. The URL is a secret: no text from here repeats any of it.

    Raises:
        ChannelError: the URL is not valid for apprise.
        DeliveryError: the message was not accepted.
    """
    import apprise  # noqa: PLC0415 - loads 100 services; a worker that never notifies needs none

    # apprise's log may repeat the URL, so it is read here and never written.
    with apprise.LogCapture(level=logging.WARNING, name="apprise") as captured:  # type: ignore[no-untyped-call]
        loggers = [logging.getLogger(name) for name in _TALKATIVE]
        before = [logger.propagate for logger in loggers]
        for logger in loggers:
            logger.propagate = False
        try:
            sender = apprise.Apprise()
            if not sender.add(url):
                error = f"channel {channel!r}: apprise does not understand its URL"
                raise ChannelError(error)
            sent = sender.notify(body=message)
            said = captured.getvalue()
        finally:
            for logger, propagate in zip(loggers, before, strict=True):
                logger.propagate = propagate
    if not sent:
        code = _STATUS_CODE.search(said)
        error = f"channel {channel!r}: not delivered" + (f", HTTP {code.group(1)}" if code else "")
        raise DeliveryError(error)
