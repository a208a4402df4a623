"""A consumer that asks Redis for a message and exits before it reads the answer."""

import os
import signal
import time

from kombu.connection import Connection
from kombu.entity import Queue

from tasks.app import app

with Connection(app.conf.broker_url, transport="celray") as connection:
    channel = connection.default_channel
    consumer = connection.Consumer(Queue("default"), callbacks=[print])
    consumer.consume()
    connection.transport.cycle.on_poll_start()  # the fetch is under way
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
