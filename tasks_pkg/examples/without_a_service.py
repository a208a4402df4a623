"""Train on this machine: no broker, no worker; usage: without_a_service.py DATASETS MODELS."""

import sys

from tasks.local import Local

datasets, models = sys.argv[1:]
local = Local(datasets, models, ray=False)
result = local.run(
    "distributed_training",
    dataset_path="examples/winequality.csv",
    model_config={"target": "quality", "n_estimators": 20},
    on_progress=lambda step: print(step["phase"], step["done"], "of", step["total"]),
)
print(f"accuracy {result['avg_score']:.3f}, manifest {result['manifest_path']}")
