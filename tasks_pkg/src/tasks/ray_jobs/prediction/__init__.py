"""``batch_predictions``: predict rows with a model of celray."""
