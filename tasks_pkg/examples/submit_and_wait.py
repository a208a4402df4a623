"""Send one task and wait for its result. Credentials: `make client`, or CELERY_BROKER_URL."""

from tasks.client import Client, TaskFailedError
from tasks.contracts import InvalidArgumentsError

with Client() as client:
    answer = client.submit("ping").result(timeout=30)
    print(answer["status"], "from", answer["worker"])

    # A mistake is told here, before anything is sent.
    try:
        client.submit("send_notification", massage="hello")
    except InvalidArgumentsError as error:
        print("refused:", error)

    # An id is all that another program needs to go on.
    task_id = client.submit("send_notification", message="hello", channel="nobody").id
    task = client.task(task_id)
    try:
        print(task.result(timeout=30)["status"])
    except TaskFailedError as error:
        print("failed:", error)
