"""Every page and every API call of Flower works, and none of them tells a secret.

Which there are is read off Flower itself, so that a new one has to be looked at.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from celery import Celery
from celery.worker.control import Panel
from celray_canaries import CANARIES, Watched, found_in, watched
from celray_testing import wait_for
from flower.urls import handlers  # type: ignore[import-untyped]

#: Arguments of control commands that do nothing without; all others are sent with none.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "add_consumer": {"queue": "default"},
    "autoscale": {"max": 3, "min": 2},
    "cancel_consumer": {"queue": "nobody"},
    "celray_drain": {},
    "celray_info": {},
    "celray_undrain": {},
    "conf": {"with_defaults": True},
    "dump_conf": {"with_defaults": True},
    "election": {"id": "1", "topic": "none"},
    "hello": {"from_node": "test@nowhere"},
    "pool_grow": {"n": 1},
    "pool_restart": {},
    "pool_shrink": {"n": 1},
    "query_task": {"ids": ["none"]},
    "rate_limit": {"task_name": "tasks.simple_tasks.ping", "rate_limit": "1000/s"},
    "revoke": {"task_id": "none"},
    "revoke_by_stamped_headers": {"headers": {"none": "none"}},
    "terminate": {"task_id": "none", "signal": "SIGTERM"},
    "time_limit": {"task_name": "tasks.simple_tasks.ping", "hard": 600.0, "soft": 500.0},
}
#: What cannot be asked without an end to the test, or needs a library that no image has.
NOT_ASKED = {"shutdown", "objgraph", "memdump", "memsample"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("flower")) as found:
        yield found


@pytest.mark.slow
def test_no_reply_to_any_control_command_holds_a_secret(stack: Watched) -> None:
    with Celery(broker=stack.redis.url(0), set_as_current=False) as app:
        # The worker has ours beside Celery's: it says which there are, by refusing what is not.
        ours = {name for name in ARGUMENTS if name.startswith("celray_")}
        names = sorted({*Panel.data, *Panel.meta, *ours} - NOT_ASKED)
        assert len(names) > 25, names
        silent = []
        for name in names:
            replies = app.control.broadcast(
                name, arguments=ARGUMENTS.get(name, {}), reply=True, timeout=10, limit=1
            )
            told = str(replies)
            assert found_in(told) == [], f"{name}: {told}"
            if not replies or (name in ("conf", "report", "stats") and "error" in replies[0]):
                silent.append(name)
        # An election is answered by nobody, by design.
        assert set(silent) <= {"election"}


def test_a_canary_would_be_found() -> None:
    assert found_in(f"redis://x:{CANARIES['redbeat']}@host") == ["redbeat"]


class Call:
    """One handler of Flower: how it is asked here, and what is right."""

    def __init__(self, method: str, path: str, status: int = 200, **options: Any) -> None:  # noqa: ANN401 - requests'
        self.method, self.path, self.status, self.options = method, path, status, options


def calls(node: str, task: str) -> dict[str, Call]:
    """Return a call for each handler, by its pattern."""
    ping = "tasks.simple_tasks.ping"
    datatable = {"draw": 1, "start": 0, "length": 10, "search[value]": "", "order[0][column]": 0}
    datatable |= {"order[0][dir]": "asc", "columns[0][data]": "name"}
    post = "POST"
    return {
        "/": Call("GET", "/"),
        "/workers": Call("GET", "/workers?refresh=1"),
        "/worker/(.+)": Call("GET", f"/worker/{node}"),
        "/task/(.+)": Call("GET", f"/task/{task}"),
        "/tasks": Call("GET", "/tasks"),
        "/tasks/datatable": Call("GET", "/tasks/datatable", params=datatable),
        "/broker": Call("GET", "/broker"),
        "/api/workers": Call("GET", "/api/workers?refresh=1"),
        # Off in Celery by default, and here: it would end what runs.
        "/api/worker/pool/restart/(.+)": Call(post, f"/api/worker/pool/restart/{node}", 403),
        "/api/worker/pool/grow/(.+)": Call(post, f"/api/worker/pool/grow/{node}?n=1"),
        "/api/worker/pool/shrink/(.+)": Call(post, f"/api/worker/pool/shrink/{node}?n=1"),
        # Of a worker without `autoscale` in the catalogue: refused, with the reason.
        "/api/worker/pool/autoscale/(.+)": Call(
            post, f"/api/worker/pool/autoscale/{node}?min=2&max=3", 403
        ),
        "/api/worker/queue/add-consumer/(.+)": Call(
            post, f"/api/worker/queue/add-consumer/{node}?queue=default"
        ),
        "/api/worker/queue/cancel-consumer/(.+)": Call(
            post, f"/api/worker/queue/cancel-consumer/{node}?queue=nobody"
        ),
        "/api/tasks": Call("GET", "/api/tasks"),
        "/api/task/types": Call("GET", "/api/task/types"),
        "/api/queues/length": Call("GET", "/api/queues/length"),
        "/api/task/info/(.*)": Call("GET", f"/api/task/info/{task}"),
        "/api/task/apply/(.+)": Call(post, f"/api/task/apply/{ping}", json={"args": []}),
        "/api/task/async-apply/(.+)": Call(
            post, f"/api/task/async-apply/{ping}", json={"args": []}
        ),
        "/api/task/send-task/(.+)": Call(
            post, f"/api/task/send-task/{ping}", json={"args": [], "queue": "default"}
        ),
        "/api/task/result/(.+)": Call("GET", f"/api/task/result/{task}"),
        # Only for tasks that look whether they are aborted.
        "/api/task/abort/(.+)": Call(post, "/api/task/abort/none"),
        "/api/task/timeout/(.+)": Call(
            post, f"/api/task/timeout/{ping}?workername={node}&soft=500&hard=600"
        ),
        "/api/task/rate-limit/(.+)": Call(
            post, f"/api/task/rate-limit/{ping}?workername={node}&ratelimit=1000/s"
        ),
        "/api/task/revoke/(.+)": Call(post, "/api/task/revoke/none"),
        "/metrics": Call("GET", "/metrics"),
        "/healthcheck": Call("GET", "/healthcheck"),
        "/static/(.*)": Call("GET", "/static/css/flower.css"),
        # Logins of other services (OAuth) are not set up: there is no such page.
        "/login/?": Call("GET", "/login", 404),
        "/logout": Call("GET", "/logout"),
        ".*": Call("GET", "/no-such-page", 404),
        "/api/worker/shutdown/(.+)": Call(post, f"/api/worker/shutdown/{node}"),
    }


def patterns() -> list[str]:
    """Return what Flower serves."""
    found = (h[0] if isinstance(h, tuple) else h.regex.pattern for h in handlers)
    return [pattern.removesuffix("$") for pattern in found]


def test_every_handler_of_flower_is_asked() -> None:
    assert set(calls("node", "id")) == set(patterns())


def test_queue_lengths_are_those_of_the_broker(stack: Watched) -> None:
    wait_for(lambda: stack.node in stack.ask("GET", "/api/workers?refresh=1").json())
    stack.worker.popen.send_signal(signal.SIGSTOP)  # it would take the message
    try:
        with stack.redis.client(0) as broker:
            broker.lpush("ml\x06\x163", "x")
            assert _lengths(stack) == {"ml": 1, "data": 0, "default": 0, "celery": 0}
            page = stack.ask("GET", "/broker").text
            assert re.search(r"redis://broker:\*\*@", page), page
            broker.delete("ml\x06\x163")
    finally:
        stack.worker.popen.send_signal(signal.SIGCONT)


def _lengths(stack: Watched) -> dict[str, int]:
    answer = stack.ask("GET", "/api/queues/length")
    return {queue["name"]: queue["messages"] for queue in answer.json()["active_queues"]}


def known_task(stack: Watched) -> str:
    """Send tasks until Flower knows one: what ran before it began to listen it never hears of."""
    sent: list[str] = []
    with Celery(broker=stack.redis.url(0), backend=stack.redis.url(1), set_as_current=False) as app:

        def known() -> str:
            task = app.send_task("tasks.simple_tasks.ping", queue="default")
            task.get(timeout=60)
            sent.append(task.id)
            asked = ((one, stack.ask("GET", f"/api/task/info/{one}")) for one in sent)
            return next((one for one, answer in asked if answer.ok), "")

        return wait_for(known)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium: .ci/apt chromium")
def test_every_page_works_in_a_real_browser(stack: Watched, tmp_path: Path) -> None:
    """What the pages' scripts put there, and nothing that they complain of."""
    task_id = known_task(stack)
    pages = {
        "/workers": [stack.node, "Online"],
        f"/worker/{stack.node}": ["Max concurrency", "broker_url"],
        "/tasks": [task_id, "tasks.simple_tasks.ping", "SUCCESS"],
        f"/task/{task_id}": ["pong", "SUCCESS"],
        "/broker": ["ml", "data", "default"],
    }
    for page, wanted in pages.items():
        found, complaints = _browse(stack, page, tmp_path)
        assert all(word in found for word in wanted), f"{page}: {found}"
        assert complaints == [], page
        assert found_in(found) == [], page


def _browse(stack: Watched, page: str, folder: Path) -> tuple[str, list[str]]:
    """Open a page in Chromium; gives what is then there, and what its console says."""
    address = stack.url.replace("://", f"://admin:{CANARIES['flower']}@") + page
    # No connection to anywhere but this page.
    quiet = ["disable-background-networking", "disable-component-update", "disable-sync"]
    quiet += ["disable-quic", "disable-gpu", "no-first-run", "no-sandbox", "headless"]
    command = ["chromium", *(f"--{option}" for option in quiet)]
    command += [f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=5000"]
    command += ["--enable-logging=stderr", "--window-size=1400,900", "--dump-dom"]
    if kept := os.environ.get("CELRAY_SCREENSHOTS"):
        picture = Path(kept, f"flower{page.split('/')[1]}.png")
        subprocess.run([*command[:-1], f"--screenshot={picture}", address], check=True, timeout=60)
    done = subprocess.run(
        [*command, address], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_nobody_else_is_told_anything(stack: Watched) -> None:
    for pattern in set(patterns()) - {"/metrics", "/healthcheck", "/static/(.*)", ".*", "/login/?"}:
        path = re.sub(r"\(\.[*+]\)", "x", pattern)
        method = calls("x", "x")[pattern].method
        answer = requests.request(method, stack.url + path, timeout=30)
        assert answer.status_code == 401 or pattern == "/logout", f"{pattern} {answer}"


@pytest.mark.slow
def test_every_page_and_call_works_and_tells_no_secret(tmp_path: Path) -> None:
    with watched(tmp_path) as stack:  # of its own: the last call ends the worker
        task_id = known_task(stack)
        wait_for(lambda: stack.node in stack.ask("GET", "/api/workers?refresh=1").json())
        for pattern, call in calls(stack.node, task_id).items():
            answer = stack.ask(call.method, call.path, **call.options)
            said = f"{pattern}: {answer.status_code} {answer.text}"
            assert answer.status_code == call.status, said
            assert found_in(answer.text + str(answer.headers)) == [], pattern
        assert found_in(stack.flower.text + stack.worker.text) == []
