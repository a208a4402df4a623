"""``hyperparameter_search``: trials of parameters, and the best model."""
