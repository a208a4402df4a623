"""The queue of each task: the only list of celray's tasks.

``ROUTES`` must stay a plain literal. The preflight reads this file with :func:`ast.literal_eval`,
before celray is installed on the host.
"""

ROUTES: dict[str, str] = {
    "tasks.simple_tasks.ping": "default",
    "tasks.simple_tasks.check_cluster_health": "default",
    "tasks.simple_tasks.send_notification": "default",
    "tasks.simple_tasks.cleanup_old_results": "default",
    "tasks.ml_tasks.distributed_training": "ml",
    "tasks.ml_tasks.batch_predictions": "ml",
    "tasks.ml_tasks.hyperparameter_search": "ml",
    "tasks.ml_tasks.retrain_models": "ml",
    "tasks.ml_tasks.rollback_model": "ml",
    "tasks.data_tasks.process_large_csv": "data",
    "tasks.data_tasks.aggregate_data": "data",
    "tasks.data_tasks.process_new_data": "data",
}
