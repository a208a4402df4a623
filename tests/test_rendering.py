"""What the deployment renders: one meaning under both compose generations, nothing either refuses.

Every inventory is rendered twice by the real roles: on this machine, and as a remote host with
settings that are hard to quote.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from generations import compose_v1, compose_v2
from parts import REPO, variables
from rendering import INVENTORIES, Rendered, render
from understood import normal, understood

ODD = "a $HOME ${HOME} $$ \"quoted\" 'single' # %d {x} \\ : é"
DEFAULTS = variables("celray", "defaults")
REMOTE = {
    "celray_worker_names": ["gpu-1", "data"],
    "redis_default_user": "full",
    "celray_task_settings": {"environment_name": ODD},
    "celery_packages": [
        {
            "name": "word-count",
            "source": "path",
            "location": "/srv/word-count",
            "queues": {"word_count.one": "gpu", "word_count.*": "data"},
            "schedule": [{"name": "count", "task": "word_count.one", "cron": "0 4 * * *"}],
        },
        {"name": "maps", "source": "index", "version": "1.0", "queues": "gpu"},
    ],
    "celery_workers": [
        {"name": "gpu-1", "queues": ["gpu", "default", "celery"], "concurrency": 3, "memory": "1g"},
        {
            "name": "data",
            "queues": ["ml", "data"],
            "autoscale": [3, 10],
            "memory": "512m",
            "tasks_per_child": 20,
            "memory_per_child": "2g",
            "cpuset": "0-1,3",
        },
    ],
    "celray_worker_overrides": {"gpu-1": {"replicas": 2}},
    "ray_gpus": 2,
    "ray_resources": {"host_w1": 1, "big": 3},
    "ray_labels": {"disk": "fast", "example.com/rack": "r-1"},
}
ELSEWHERE = {
    "ray_address": "https://ray.example:443",
    "ray_auth_mode": "disabled",
    "ray_runtime_env": {"pip": ["polars==2.1.0"], "env_vars": {"A": 'it\'s "$B"'}},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("127.0.0.1", {}),
    "remote": ("10.0.0.84", REMOTE),
    "ray elsewhere": ("10.0.0.84", ELSEWHERE),
    "ipv6": ("fd00::5", {}),
    "ipv6 loopback": ("::1", {}),
}
#: Every inventory on this machine and remotely; Ray elsewhere is the same for all of them.
CASES = [
    *((inventory, variant) for inventory in INVENTORIES for variant in ("local", "remote")),
    ("single", "ray elsewhere"),
    ("single", "ipv6"),
    ("single", "ipv6 loopback"),
]
#: What make test-fast renders: a deployment of one host, and one of several.
FAST = {("single", "local"), ("cluster", "remote")}
#: Keys that one of the generations refuses, wherever they stand (shared design), and published
#: ports, which host networking has no use for.
REFUSED = {
    "include",
    "gpus",
    "configs",
    "start_interval",
    "required",
    "ports",
    "version",
    "extends",
}


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(case, marks=[] if case in FAST else pytest.mark.slow, id=" ".join(case))
        for case in CASES
    ],
)
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    inventory, variant = request.param
    address, settings = VARIANTS[variant]
    return render(tmp_path_factory.mktemp(variant), inventory, address, settings)


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from keys(item)
    if isinstance(value, list):
        for item in value:
            yield from keys(item)


def text_of(project: Path) -> str:
    return (project / "compose.yml").read_text()


def test_both_generations_understand_the_same_services(rendered: Rendered) -> None:
    assert rendered.projects
    for project in rendered.projects:
        assert understood(compose_v1(), project) == understood(compose_v2(), project)


def test_compose_understands_what_the_template_says(rendered: Rendered) -> None:
    for project in rendered.projects:
        written = yaml.safe_load(text_of(project))["services"]
        for name, service in understood(compose_v2(), project).items():
            assert service == normal(written[name])


def test_no_key_that_a_generation_refuses(rendered: Rendered) -> None:
    for name, service in rendered.services.items():
        # A label or a variable may have any name.
        free = {key: service[key] for key in service if key not in ("labels", "environment")}
        assert not REFUSED & set(keys(free)), name


def test_an_address_is_bracketed_in_every_url_and_nowhere_else(rendered: Rendered) -> None:
    """`redis://…@::1:6380` was a whole deploy in vain: IPv6 is one host in every file."""
    ipv6 = "fd00::5"
    found = 0
    for file in filter(Path.is_file, rendered.home.glob("*/**/*")):
        text = file.read_text()
        found += text.count(ipv6)
        assert not re.search(rf"(?<!\[){ipv6}[:/]\d|//\S*(?<!\[){ipv6}", text), file
        assert not re.search(rf"\[{ipv6}\](?!:\d)", text), file
        for url in re.findall(r"\b(?:redis|https?)://[^\s\"'\\]+", text):
            assert urlsplit(url).hostname, (file, url)
            assert urlsplit(url).port != 0, (file, url)
    if rendered.services and "fd00" in str(rendered.services):
        assert found >= 6


def test_ray_is_asked_where_it_listens(rendered: Rendered) -> None:
    """Ray takes ::1 for 127.0.0.1, whatever it is told: nobody may ask for it elsewhere."""
    for ray in rendered.home.glob("*/projects/ray/compose.yml"):
        assert not re.search(r"--(node-ip-address|dashboard-host)=::1", ray.read_text())
    for file in filter(Path.is_file, rendered.home.glob("*/**/*")):
        assert "[::1]:8265" not in file.read_text(), file


def test_every_catalogue_worker_is_a_service_with_its_queues(rendered: Rendered) -> None:
    services = rendered.services
    names = {name for name in services if name.startswith("celery-worker-")}
    if "celery-worker-gpu-1" in names:
        assert names == {"celery-worker-gpu-1", "celery-worker-gpu-1-2", "celery-worker-data"}
        command = services["celery-worker-gpu-1"]["command"]
        assert command[command.index("-Q") + 1] == "gpu,default,celery"
        assert command[command.index("-c") + 1] == "3"
        assert services["celery-worker-data"]["mem_limit"] == "512m"
        data = services["celery-worker-data"]
        assert "--autoscale=10,3" in data["command"]
        assert data["command"][data["command"].index("--max-tasks-per-child") + 1] == "20"
        assert data["command"][data["command"].index("--max-memory-per-child") + 1] == "2097152"
        assert data["cpuset"] == "0-1,3"
        assert "gpu-1-2@%h" in services["celery-worker-gpu-1-2"]["command"]
    else:
        assert names == {f"celery-worker-{name}" for name in ("ml", "data", "default")}


def test_every_service_is_confined_restarts_and_has_limits(rendered: Rendered) -> None:
    for name, service in rendered.services.items():
        assert service["restart"] == "unless-stopped", name
        assert service["network_mode"] == "host", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"].split(":")[0] not in ("", "0", "root"), name
        assert service["mem_limit"], name
        assert 2 <= service["cpu_shares"] <= 4096, name
        assert service["logging"]["options"]["max-size"], name
        assert service["healthcheck"]["test"], name
        assert service["labels"]["celray.project"] == "celray", name
        assert len(service["labels"]["celray.digest"]) == 12, name


def test_no_secret_stands_in_a_definition(rendered: Rendered) -> None:
    for project in rendered.projects:
        for place in (project / "compose.yml", project / "state.json"):
            assert not [
                name for name, value in rendered.secret.items() if value in place.read_text()
            ]


def test_a_secret_file_is_read_by_its_owner_alone(rendered: Rendered) -> None:
    secrets = set(rendered.secret.values())
    files = [path for path in rendered.home.glob("*/projects/*/files/*") if path.is_file()]
    holding = [path for path in files if any(value in path.read_text() for value in secrets)]
    assert {path.name for path in holding} >= {"celray_broker_url", "ray_auth_token"}
    assert {path.stat().st_mode & 0o777 for path in holding} == {0o400}


def test_every_file_of_ours_that_is_mounted_was_written(rendered: Rendered) -> None:
    for service in rendered.services.values():
        for volume in service["volumes"]:
            assert Path(volume.split(":")[0]).exists(), volume


def test_redis_knows_passwords_by_their_hashes_alone(rendered: Rendered) -> None:
    for rules in rendered.home.glob("*/projects/redis/files/users.acl"):
        assert not [value for value in rendered.secret.values() if value in rules.read_text()]
        assert rules.read_text().count(" #") == 5


def test_who_only_sends_tasks_may_add_to_the_catalogues_queues_and_read_none(
    rendered: Rendered,
) -> None:
    for rules in rendered.home.glob("*/projects/redis/files/users.acl"):
        users = {row.split(" ")[1]: row for row in rules.read_text().splitlines() if row}
        assert users.keys() == {"default", "operator", "celray", "admin", "door", "health"}
        full = rendered.settings.get("redis_default_user") == "full"
        assert (" ~* " in users["default"]) == full
        assert (" +evalsha" in users["default"]) == full
        workers = rendered.settings.get("celery_workers", DEFAULTS["celery_workers"])
        queues = {queue for worker in workers for queue in worker["queues"]}
        wanted = {f"%W~{name}{end}" for name in queues for end in ("", "\x06\x163", "\x06\x169")}
        assert full or wanted <= set(users["default"].split(" "))


def test_redis_listens_on_loopback_and_the_hosts_address(rendered: Rendered) -> None:
    for settings in rendered.home.glob("*/projects/redis/files/redis.conf"):
        bind = next(row for row in settings.read_text().splitlines() if row.startswith("bind "))
        addresses = bind.split()[1:]
        assert addresses[0] == "127.0.0.1"
        assert addresses[1:] in ([], ["10.0.0.84"], ["fd00::5"], ["::1"])
        assert settings.read_text().count("\nmaxmemory-policy noeviction\n") == 1


def test_redis_is_asked_for_its_health_at_its_own_address(rendered: Rendered) -> None:
    """Not at that of the first host of its group, whichever host it is on."""
    for project in rendered.home.glob("*/projects/redis"):
        settings = (project / "files/redis.conf").read_text().splitlines()
        bind = next(row for row in settings if row.startswith("bind "))
        asked = yaml.safe_load(text_of(project))["services"]["redis"]["healthcheck"]["test"][1]
        assert f"redis-cli -h {bind.split()[-1]} " in asked


def test_flowers_configuration_is_python_with_the_password(rendered: Rendered) -> None:
    for source in rendered.home.glob("*/projects/flower/files/flowerconfig.py"):
        values = {
            ast.unparse(node.targets[0]): ast.literal_eval(node.value)
            for node in ast.parse(source.read_text()).body
            if isinstance(node, ast.Assign)
        }
        assert values["basic_auth"] == [f"admin:{rendered.secret['flower_password']}"]
        assert values["address"] in ("127.0.0.1", "10.0.0.84", "fd00::5", "::1")
        assert values["port"] == 5555


def test_every_process_of_ours_is_told_of_the_packages_and_beat_of_their_schedule(
    rendered: Rendered,
) -> None:
    given = rendered.settings.get("celery_packages", [])
    wanted = [{"name": package["name"], "queues": package["queues"]} for package in given]
    ours = {name: box for name, box in rendered.services.items() if "celery" in name}
    for name in {*ours, "flower"} - {"redis-celery"}:
        environment = rendered.services[name]["environment"]
        assert json.loads(environment.get("CELRAY_PACKAGES", "[]")) == wanted, name
    schedule = json.loads(rendered.services["celery-beat"]["environment"]["CELRAY_BEAT_SCHEDULE"])
    assert ("word_count.one" in {entry["task"] for entry in schedule}) == bool(given)


def test_with_a_ray_of_others_there_is_none_of_ours(rendered: Rendered) -> None:
    elsewhere = rendered.settings.get("ray_address")
    assert ("ray-head" in rendered.services) != bool(elsewhere)
    assert not elsewhere or "ray-node" not in rendered.services
    environment = rendered.services["celery-beat"]["environment"]
    assert environment["RAY_AUTH_MODE"] == ("disabled" if elsewhere else "token")
    wanted = elsewhere or environment["CELRAY_RAY_ADDRESS"]
    assert environment["CELRAY_RAY_ADDRESS"] == wanted
    given = json.loads(environment.get("CELRAY_RAY_RUNTIME_ENV", "{}").replace("$$", "$"))
    assert given == rendered.settings.get("ray_runtime_env", {})


def options_of(service: dict[str, Any]) -> dict[str, str]:
    """Return what `ray start` is told, by option."""
    words = (word.removeprefix("--").partition("=") for word in service["command"])
    return {name: value for name, _, value in words if value}


def rays(rendered: Rendered) -> dict[str, dict[str, Any]]:
    """Return the containers of Ray."""
    return {name: box for name, box in rendered.services.items() if name.startswith("ray-")}


def test_a_ray_offers_what_its_host_has(rendered: Rendered) -> None:
    for name, service in rays(rendered).items():
        given, settings = options_of(service), rendered.settings
        assert json.loads(given.get("resources", "{}")) == settings.get("ray_resources", {}), name
        labels = dict(pair.split("=") for pair in given.get("labels", "").split(",") if pair)
        # The example has one node with a label of its own.
        assert {**settings.get("ray_labels", {}), **labels} == labels, name
        devices = service.get("deploy", {}).get("resources", {}).get("reservations", {})
        if "ray_gpus" in settings:
            assert given["num-gpus"] == "2", name
            wanted = {"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}
            assert devices == {"devices": [wanted]}, name
        else:
            assert "num-gpus" not in given, name
            assert devices == {}, name


def test_every_port_of_a_ray_node_is_one_that_is_known(rendered: Rendered) -> None:
    """What stands open is what docs/where.md says: a firewall is made from that."""
    for name, service in rays(rendered).items():
        given = options_of(service)
        ports = {int(value) for option, value in given.items() if option.endswith("port")}
        known = {port for name, port in DEFAULTS.items() if name.startswith("celray_port_ray_")}
        assert ports <= known, name
        assert len(ports) == {"ray-head": 11, "ray-node": 8}[name]


def test_nodes_ask_the_head_and_have_its_secrets(rendered: Rendered) -> None:
    found = rays(rendered)
    if "ray-node" not in found:
        return
    head, node = found["ray-head"], found["ray-node"]
    address = options_of(head)["node-ip-address"]
    assert options_of(node)["address"] == f"{address}:6379"
    assert options_of(node)["node-name"] == "ray-2"
    for file in ("ray_auth_token", "ray_tls_key"):
        held = [path.read_text() for path in rendered.home.glob(f"*/projects/ray*/files/{file}")]
        assert held == [rendered.secret[file]] * 2
    assert {key: head["environment"].get(key) for key in node["environment"]} == {
        **node["environment"],
        "RAY_gcs_rpc_server_reconnect_timeout_s": None,
    }
    assert head["environment"]["RAY_health_check_failure_threshold"] == "10"
    for mount in ("/datasets", "/models", "/ray"):
        assert len([True for box in (head, node) if f":{mount}" in str(box["volumes"])]) == 2


def test_a_head_alone_is_not_touched_by_what_nodes_need(rendered: Rendered) -> None:
    """Otherwise an update of celray would replace it, and end every job, for nothing."""
    found = rays(rendered)
    if "ray-head" in found and "ray-node" not in found:
        text = json.dumps(found["ray-head"])
        for word in ("cluster-tls", "ray_tls_key", "health_check_failure_threshold", "deploy"):
            assert (word in text) == (word == "deploy" and "ray_gpus" in rendered.settings), word


def test_services_are_converged_in_their_order_over_all_hosts(rendered: Rendered) -> None:
    """A Ray node waits for a head that is another host's, and workers for Redis."""
    order = ["redis", "ray", "ray-node", "workers", "beat", "flower"]
    written = [
        (path.stat().st_mtime_ns, order.index(path.parent.name))
        for path in rendered.home.glob("*/projects/*/compose.yml")
    ]
    assert [place for _, place in sorted(written)] == sorted(place for _, place in written)


def test_a_task_setting_reaches_the_container_as_it_was_written(rendered: Rendered) -> None:
    wanted = rendered.settings.get("celray_task_settings", {}).get("environment_name")
    for project in rendered.projects:
        for name, service in understood(compose_v1(), project).items():
            ours = "CELRAY_WORKERS" in service["environment"] if "environment" in service else False
            value = service.get("environment", {}).get("CELRAY_ENVIRONMENT_NAME")
            # `config` prints what can be read again: a dollar sign is doubled there too.
            assert value == (wanted.replace("$", "$$") if wanted and ours else None), name


@pytest.mark.parametrize(
    "name", ["ray_tls.py", "ray_logs.py", "ray_cluster_tls.py", "ray_node.py", "redis_door.sh"]
)
def test_programs_of_ours_are_written_as_they_are(rendered: Rendered, name: str) -> None:
    (source,) = REPO.glob(f"roles/*/files/{name}")
    for path in rendered.home.glob(f"*/projects/*/files/{name}"):
        assert path.read_text() == source.read_text()
