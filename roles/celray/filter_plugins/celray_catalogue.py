"""The effective catalogue of workers: the inventory's, with the overrides of `make scale`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: A worker has only one of them: setting one removes the other.
EXCLUSIVE = ("concurrency", "autoscale")
#: What kombu appends to a queue's name for each priority step (tasks.broker.redis.priorities).
PRIORITY_SUFFIXES = ("", *(f"\x06\x16{step}" for step in (3, 6, 9)))


def celray_overridden(workers: Any, overrides: Any, scaled_from: Any = None) -> Any:
    """Return the workers with their effective overrides; preflight reports malformed ones.

    Parameters:
        scaled_from: what the catalogue said when `make scale` was called, by worker: where it says
            something else now, it was edited afterwards, and the edit holds.
    """
    if not isinstance(workers, list) or not isinstance(overrides, Mapping):
        return workers
    return [
        overridden(worker, holding(worker, overrides, scaled_from))
        if isinstance(worker, Mapping)
        else worker
        for worker in workers
    ]


def group_of(key: str) -> tuple[str, ...]:
    """Return the keys of the catalogue that an override of this key replaces."""
    return EXCLUSIVE if key in EXCLUSIVE else (key,)


def said_before(worker: Mapping[str, Any], scaled_from: Any) -> Mapping[str, Any] | None:
    """Return the catalogue's value for a worker when it was scaled; None if unknown."""
    found = scaled_from.get(str(worker.get("name"))) if isinstance(scaled_from, Mapping) else None
    return found if isinstance(found, Mapping) else None


def edited(worker: Mapping[str, Any], key: str, scaled_from: Any) -> bool:
    """Return whether the catalogue was edited after `make scale` set a key."""
    before = said_before(worker, scaled_from)
    if before is None or not set(group_of(key)) <= set(before):
        return False
    return any(worker.get(name) != before[name] for name in group_of(key))


def holding(worker: Mapping[str, Any], overrides: Mapping[str, Any], scaled_from: Any) -> Any:
    """Return the overrides of a worker that no later edit has replaced."""
    changes = overrides.get(str(worker.get("name")))
    if not isinstance(changes, Mapping):
        return changes
    return {key: value for key, value in changes.items() if not edited(worker, key, scaled_from)}


def celray_scaled_from(workers: Any, name: str) -> dict[str, Any]:
    """Return the catalogue's values of the keys that `make scale` sets, for `scaled_from`."""
    keys = (*EXCLUSIVE, "replicas")
    for worker in workers if isinstance(workers, list) else []:
        if isinstance(worker, Mapping) and worker.get("name") == name:
            return {name: {key: worker.get(key) for key in keys}}
    return {}


def celray_still_holding(overrides: Any, workers: Any, scaled_from: Any) -> Any:
    """Return the overrides that no edit has replaced: `make scale` must not revive the others."""
    if not isinstance(workers, list) or not isinstance(overrides, Mapping):
        return overrides
    known = {worker.get("name"): worker for worker in workers if isinstance(worker, Mapping)}
    return {
        name: holding(known[name], overrides, scaled_from) if name in known else changes
        for name, changes in overrides.items()
    }


def celray_which_hold(workers: Any, overrides: Any, scaled_from: Any) -> list[str]:
    """Return a line for each value that is given twice: which one applies, and why.

    What is malformed is left for preflight to name.
    """
    told = []
    for worker in workers if isinstance(workers, list) else []:
        if not isinstance(worker, Mapping) or not isinstance(overrides, Mapping):
            continue
        changes = overrides.get(str(worker.get("name")))
        for key, value in (changes if isinstance(changes, Mapping) else {}).items():
            given = {name: worker[name] for name in group_of(key) if name in worker}
            if given == {key: value}:
                continue
            catalogue = ", ".join(f"{name} {what}" for name, what in given.items()) or f"no {key}"
            scaled, label = f"{key} {value}", f"worker {worker.get('name')}"
            before = said_before(worker, scaled_from)
            if edited(worker, key, scaled_from):
                was = {n: before[n] for n in group_of(key) if before and before[n] is not None}
                then = ", ".join(f"{name} {what}" for name, what in was.items()) or f"no {key}"
                told.append(
                    f"{label}: {catalogue} of celery_workers holds, not {scaled} of make scale: "
                    f"celery_workers was edited afterwards (it said {then})"
                )
            else:
                why = (
                    "celery_workers has not been edited since"
                    if before
                    else "when was not kept; set it by make scale again, or remove it from "
                    "group_vars/all/worker_overrides.yml"
                )
                told.append(
                    f"{label}: {scaled} of make scale holds, not {catalogue} of celery_workers: "
                    f"{why}"
                )
    return told


def overridden(worker: Mapping[str, Any], changes: Any) -> dict[str, Any]:
    if not isinstance(changes, Mapping):
        return dict(worker)
    dropped = set(EXCLUSIVE) if set(EXCLUSIVE) & set(changes) else set()
    return {key: value for key, value in worker.items() if key not in dropped} | dict(changes)


def celray_names(workers: Any) -> list[str]:
    """Return the names of the workers; preflight reports a worker without one."""
    return [
        str(worker["name"])
        for worker in (workers if isinstance(workers, list) else [])
        if isinstance(worker, Mapping) and "name" in worker
    ]


def celray_nodes(workers: Any) -> list[str]:
    """Return the node names of the workers, one per replica: data, data-2, ..."""
    return [
        f"{worker['name']}-{number}" if number > 1 else str(worker["name"])
        for worker in (workers if isinstance(workers, list) else [])
        if isinstance(worker, Mapping) and "name" in worker
        for number in range(1, replicas(worker) + 1)
    ]


def celray_worker_containers(workers: Any, names: Any = None) -> dict[str, str]:
    """Return the workers' containers, by the names that make's WHAT has for them.

    Parameters:
        names: the workers of one host; by default all.
    """
    chosen = [
        worker
        for worker in (workers if isinstance(workers, list) else [])
        if isinstance(worker, Mapping) and (names is None or worker.get("name") in names)
    ]
    return {f"worker-{node}": f"celery-worker-{node}" for node in celray_nodes(chosen)}


def celray_looked_at(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the hosts that host_facts has looked at; others did not answer."""
    return [
        str(host["inventory_hostname"])
        for host in hosts
        if "containers" in (host.get("host_facts") or {})
    ]


def celray_expected_nodes(hosts: Iterable[Mapping[str, Any]], workers: Any) -> list[str]:
    """Return the nodes that answer if all is well, such as data-2@host.

    Parameters:
        hosts: the variables of the hosts that run workers.
        workers: the catalogue.
    """
    return [
        f"{container.removeprefix('celery-worker-')}@{host['host_facts']['hostname']}"
        for host in hosts
        for container in celray_worker_containers(workers, host.get("celray_worker_names")).values()
    ]


def celray_asked(hosts: Iterable[Mapping[str, Any]], workers: Any) -> dict[str, str]:
    """Return the host and the container in which a question to the whole fleet is asked.

    It is the first host that has a worker running, and there the last of the catalogue. Without a
    running worker the result is empty.
    """
    order = list(celray_worker_containers(workers).values())
    for host in hosts:
        running = {
            box["name"]
            for box in host["host_facts"].get("containers", [])
            if box.get("project") == "celray" and box.get("state") == "running"
        }
        if found := [name for name in order if name in running]:
            return {"host": str(host["inventory_hostname"]), "container": found[-1]}
    return {}


def replicas(worker: Mapping[str, Any]) -> int:
    """Return the number of containers; preflight reports a value that is no number."""
    count = worker.get("replicas", 1)
    return count if isinstance(count, int) else 1


def celray_url_host(address: Any) -> str:
    """Return an address as part of a URL: IPv6 in brackets, a zone's percent sign escaped."""
    text = str(address)
    return f"[{text.replace('%', '%25')}]" if ":" in text and not text.startswith("[") else text


def celray_submitters_keys(workers: Any) -> str:
    """Return the keys and channels, as Redis ACL rules, for clients of the workers' queues.

    A queue is one list for each of kombu's priority steps, and two sets in which clients note it.
    Queues can be added to and not read; results can be read by whoever knows the task's id.
    """
    queues = {
        str(queue)
        for worker in (workers if isinstance(workers, list) else [])
        if isinstance(worker, Mapping)
        for queue in worker.get("queues", [])
    }
    rules = ["resetkeys", "resetchannels", "&celery-task-meta-*", "%R~celery-task-meta-*"]
    for queue in sorted(queues):
        rules += [f"%RW~_kombu.{kind}.{queue}" for kind in ("binding", "binding_permanent")]
        rules += [f"%W~{queue}{suffix}" for suffix in PRIORITY_SUFFIXES]
    return " ".join(rules)


class FilterModule:
    """Return the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        return {
            "celray_overridden": celray_overridden,
            "celray_names": celray_names,
            "celray_nodes": celray_nodes,
            "celray_worker_containers": celray_worker_containers,
            "celray_looked_at": celray_looked_at,
            "celray_expected_nodes": celray_expected_nodes,
            "celray_asked": celray_asked,
            "celray_scaled_from": celray_scaled_from,
            "celray_still_holding": celray_still_holding,
            "celray_which_hold": celray_which_hold,
            "celray_url_host": celray_url_host,
            "celray_submitters_keys": celray_submitters_keys,
        }
