"""Train on the sample data, watch it move, see where the time went."""

from tasks.client import Client

with Client() as client:
    task = client.submit(
        "distributed_training",
        dataset_path="examples/winequality.csv",
        model_config={"target": "quality", "n_estimators": 300, "num_partitions": 2},
    )
    for status in task.follow(timeout=300):
        step = status.progress or {}
        print(status.state, step.get("phase", ""), step.get("done", ""), step.get("message", ""))
    result = task.result()
    print(f"accuracy {result['avg_score']:.3f}, model in {result['model_path']}")
    print("seconds:", {name: value for name, value in result.items() if name.endswith("_seconds")})
