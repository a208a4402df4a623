"""What is refused before a Ray job starts: datasets, requests for predictions, retraining files."""
