"""Add digests to a rendered compose definition, and converge a host to it.

The controller does all that needs YAML: it parses the definition, gives every service a digest over
its definition and every file that it mounts, and sends plain data to the module of the same name.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import yaml
from ansible.plugins.action import ActionBase

DIGEST_LABEL = "celray.digest"


class DefinitionError(ValueError):
    """An unusable rendered definition; the message tells why."""


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key and writes no anchors, as a person would."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        """Quote what begins like a number.

        PyYAML knows YAML 1.1, in which 457e1 is a text; Compose v2 reads 1.2, in which it is 4570.
        """
        number = bool(re.match(r"[-+.]?\d", value))
        return self.represent_scalar("tag:yaml.org,2002:str", value, style="'" if number else None)


_Dumper.add_representer(str, _Dumper.text)


def parse(text: str) -> dict[str, Any]:
    """Return a rendered template as plain data."""
    try:
        definition = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DefinitionError(f"the rendered template is no YAML: {error}") from error
    if not isinstance(definition, dict) or not isinstance(definition.get("services"), dict):
        raise DefinitionError("the rendered template has no services")
    for name, service in definition["services"].items():
        if not service.get("container_name") or not service.get("image"):
            raise DefinitionError(f"service {name} lacks container_name or image")
        if service["image"].endswith(":latest") or ":" not in service["image"]:
            raise DefinitionError(f"service {name}: image {service['image']} is not pinned")
    return definition


def mounts(service: Mapping[str, Any]) -> list[str]:
    """Return the host side of every bind mount, as written."""
    return [volume.split(":")[0] for volume in service.get("volumes", []) if volume.startswith("/")]


def fingerprint(key: str, value: Any) -> str:
    """12 hex digits, keyed: a digest that covers a secret must not let anybody try candidates."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()[:12]


def parts_of(
    service: Mapping[str, Any], folder: str, files: Mapping[str, str], key: str
) -> dict[str, str]:
    """Return a fingerprint per part of a service: each key, and each mounted file of celray."""
    parts = {name: fingerprint(key, value) for name, value in service.items()}
    for source in mounts(service):
        name = os.path.relpath(source, folder)
        if name in files:
            parts[name] = fingerprint(key, files[name])
        elif not name.startswith(".."):
            raise DefinitionError(f"{source} is mounted but not among the project's files")
    return parts


def escape(value: Any) -> Any:
    """Escape `$`, so that compose interpolates nothing."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escape(item) for item in value]
    return value


def prepare(
    text: str, folder: str, files: Mapping[str, str], key: str
) -> tuple[str, dict[str, dict[str, Any]], list[str]]:
    """Rendered template -> the compose file to write, the services, the directories to make.

    Of each service it gives what the module has to know; the directories are those that must exist
    before anything is mounted.
    """
    definition = parse(text)
    services: dict[str, dict[str, Any]] = {}
    folders: list[str] = []
    for name, service in definition["services"].items():
        parts = parts_of(service, folder, files, key)
        digest = fingerprint(key, parts)
        service["labels"] = {**service.get("labels", {}), DIGEST_LABEL: digest}
        services[name] = {
            "container": service["container_name"],
            "image": service["image"],
            "digest": digest,
            "parts": parts,
            "health": "healthcheck" in service,
        }
        folders += [path for path in mounts(service) if os.path.relpath(path, folder) not in files]
    header = "# Written by celray; a change made here is undone by the next deploy.\n"
    body = yaml.dump(escape(definition), Dumper=_Dumper, sort_keys=False, width=100)
    return header + body, services, sorted(set(folders))


def to_store(
    definition: str,
    stand_in: str,
    kinds: Mapping[bool, Mapping[str, str]],
    services: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what a rollback needs to repeat this: only the names of secret files."""
    return {
        "definition": definition,
        "stand_in": stand_in,
        "files": dict(kinds[False]),
        "secret_files": sorted(kinds[True]),
        "images": sorted({service["image"] for service in services.values()}),
    }


def as_stored(
    stored: Mapping[str, Any], kinds: dict[bool, dict[str, str]]
) -> dict[bool, dict[str, str]]:
    """The files of an earlier version: plain ones as they were, secret ones as they are now.

    A password that was changed since stays changed.
    """
    lacking = sorted(set(stored["secret_files"]) - set(kinds[True]))
    if lacking:
        raise DefinitionError(
            f"that version mounts {', '.join(lacking)}, which this checkout does not make: check "
            "out its commit (make history) and make update"
        )
    return {
        True: {name: kinds[True][name] for name in stored["secret_files"]},
        False: dict(stored["files"]),
    }


class ActionModule(ActionBase):
    """Arguments: see roles/compose_project/tasks/main.yml."""

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        kinds: dict[bool, dict[str, str]] = {True: {}, False: {}}
        for item in args.pop("files"):
            kinds[item.get("secret", True)][f"files/{item['name']}"] = item["content"]
        key = args.pop("digest_key")
        stand_in = args.pop("stand_in", None) or {}
        rolling = args.pop("rolling", False)
        stored = args.pop("stored", None) or {}
        definition = args.pop("definition")
        try:
            if stored:
                kinds = as_stored(stored, kinds)
                definition = stored["definition"]
                stand_in |= {"definition": stored["stand_in"]} if stand_in else {}
            files = kinds[True] | kinds[False]
            text, services, folders = prepare(definition, args["folder"], files, key)
            deployed = to_store(definition, stand_in.get("definition", ""), kinds, services)
            if not rolling or not stand_in.get("definition"):
                stand_in = {}
            if stand_in:
                other, others, _ = prepare(stand_in.pop("definition"), args["folder"], files, key)
                stand_in |= {"text": other, "services": others}
        except DefinitionError as error:
            return result | {"failed": True, "msg": f"project {args['project']}: {error}"}
        module_args = {
            **args,
            "text": text,
            "services": services,
            "folders": folders,
            "secret_files": kinds[True],
            "files": kinds[False],
            "stand_in": stand_in or None,
            "deployed": json.dumps(deployed, sort_keys=True),
        }
        done: dict[str, Any] = self._execute_module(
            module_name="celray_compose", module_args=module_args, task_vars=task_vars
        )
        # The invocation would repeat every definition at -v, and tells nobody anything.
        done.pop("invocation", None)
        short = bool(os.environ.get("CELRAY_SHORT")) or not self._task.check_mode
        lines = done.pop("lines", []) + [f"  {line}" for line in done.pop("told", [])]
        detail = [] if short else done.pop("detail", [])
        done.pop("detail", None)
        if lines:
            done["diff"] = {"prepared": "\n".join([*lines, *detail]) + "\n"}
        return result | done
