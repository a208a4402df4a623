"""``retrain_models`` and ``rollback_model``: which version of a model is in use."""
