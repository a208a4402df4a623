#!/usr/bin/python
"""Read what an existing Ray cluster runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celray_ray
short_description: Ask a Ray cluster's dashboard for the versions of Ray and Python
options:
  address: {description: URL of the dashboard and Jobs API, type: str, required: true}
  token: {description: Its token, type: str, default: ""}
author: celray
"""

EXAMPLES = r"""
- name: Ask
  celray_ray: {address: "http://10.0.0.90:8265"}
"""

RETURN = r"""
status: {description: HTTP status of its answer, 0 for none, returned: always, type: int}
error: {description: Why there was no answer, returned: always, type: str}
ray: {description: Its version of Ray, returned: always, type: str}
python: {description: Its version of Python, returned: always, type: str}
"""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

ANSWER_SECONDS = 10
METADATA = "/api/v0/cluster_metadata"


def ask(address: str, token: str) -> dict[str, Any]:
    """Return the dashboard's data about its cluster."""
    found: dict[str, Any] = {"status": 0, "error": "", "ray": "", "python": ""}
    request = urllib.request.Request(address.rstrip("/") + METADATA)  # noqa: S310 - checked before
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            found["status"] = answer.status
            document = json.load(answer)
        data = document.get("data", document)
        found["ray"] = str(data.get("rayVersion") or data.get("ray_version") or "")
        found["python"] = str(data.get("pythonVersion") or data.get("python_version") or "")
    except urllib.error.HTTPError as error:
        found["status"] = error.code
    except (OSError, http.client.HTTPException) as error:
        found["error"] = str(getattr(error, "reason", "")) or str(error) or type(error).__name__
    except (ValueError, AttributeError):
        found["error"] = "its answer is not that of a Ray dashboard"
    return found


def main() -> None:
    # Here: tests beside a real Ray use the rest of this file, and have no Ansible.
    from ansible.module_utils.basic import AnsibleModule  # noqa: PLC0415

    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "token": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **ask(module.params["address"], module.params["token"]))


if __name__ == "__main__":
    main()
