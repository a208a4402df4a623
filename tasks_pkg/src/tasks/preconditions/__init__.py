"""Checks before a Ray job starts: datasets, prediction requests, retraining files."""
