"""``hyperparameter_search``: try combinations of parameters, and train the best model."""
