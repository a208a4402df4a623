"""``batch_predictions``: rows through a model of ours."""
