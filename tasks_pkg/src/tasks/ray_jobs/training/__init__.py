"""``distributed_training``: one XGBoost model from one dataset."""
