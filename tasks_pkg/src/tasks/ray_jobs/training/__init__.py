"""``distributed_training``: train one XGBoost model on one dataset."""
