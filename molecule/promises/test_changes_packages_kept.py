"""After a package was added, which built new images, a rollback to earlier versions still works."""

from __future__ import annotations

import json

from deployment import Deployment, in_default_alone

pytestmark = in_default_alone("the same images and records in every scenario")


def test_the_images_of_the_last_three_versions_are_there(deployment: Deployment) -> None:
    folder = f"{deployment.home}/history"
    lines = deployment.ssh("sudo", "cat", f"{folder}/record.jsonl").splitlines()
    done = [
        line for line in map(json.loads, lines) if line["result"] == "ok" and line.get("version")
    ]
    used = list(dict.fromkeys(line["version"] for line in reversed(done)))
    images = set()
    for number in used[:3]:
        stored = json.loads(deployment.ssh("sudo", "cat", f"{folder}/versions/{number}.json"))
        images |= {image for made in stored["projects"].values() for image in made["images"]}
    assert len([image for image in images if image.startswith("celray/worker:")]) > 1
    deployment.docker("image", "inspect", *sorted(images))
    told = deployment.make("diff", f"TO={used[1]}")
    assert told.actions
