"""Without our package: any Python that has celery[redis], two URLs, the task's full name."""

import os

from celery import Celery

app = Celery(
    broker=os.environ["CELERY_BROKER_URL"],  # redis://:PASSWORD@HOST:6380/0
    backend=os.environ["CELERY_RESULT_BACKEND"],  # redis://:PASSWORD@HOST:6380/1
)
# Where Redis takes connections and answers nothing, Celery waits for ever by default.
app.conf.update(
    broker_transport_options={"socket_timeout": 10, "socket_connect_timeout": 5},
    redis_socket_timeout=10.0,
    redis_retry_on_timeout=True,
    result_backend_always_retry=True,
    task_publish_retry_policy={"max_retries": 12, "interval_step": 0.5},
)
sent = app.send_task("tasks.simple_tasks.ping", kwargs={}, queue="default")
print(sent.get(timeout=30)["status"])

# Who names no queue publishes to Celery's own default queue, `celery`, which is served too.
print(app.send_task("tasks.simple_tasks.ping").get(timeout=30)["queue"])
