"""``retrain_models`` and ``rollback_model``: choose which version of a model is in use."""
