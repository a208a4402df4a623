"""A report of what does not hold is kept and shown like any other; then the run fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from parts import play

PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: operate, tasks_from: report.yml}
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 1])
def test_a_report_is_kept_and_shown_whatever_it_says(tmp_path: Path, code: int) -> None:
    engine = tmp_path / "docker"
    engine.write_text(f"#!/bin/sh\ncat >/dev/null\necho '# one of 29 fails'\nexit {code}\n")
    engine.chmod(0o755)
    reports = tmp_path / "reports"
    host: dict[str, Any] = {"home": str(tmp_path), "hostname": "here", "address": "127.0.0.1"}
    host |= {"uid": 1000, "gid": 1000, "containers": []}
    facts = {
        "host_facts": {**host, "engine": {"path": str(engine), "access": "direct"}},
        "operate_reports_dir": str(reports),
        "operate_worker": "celery-worker-default",
        "operate_verified": {"stdout": '{"ok": false}', "rc": code},
        "ansible_python_interpreter": sys.executable,
    }
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAYBOOK)

    played = play(str(playbook), "-i", "localhost,", "-c", "local", "-e", f"@{tmp_path}/facts.json")

    assert "# one of 29 fails" in played.output
    assert sorted(file.suffix for file in reports.iterdir()) == [".json", ".md"]
    assert (played.code != 0) == bool(code)
    assert ("verify found a failed check" in played.output) == bool(code)
