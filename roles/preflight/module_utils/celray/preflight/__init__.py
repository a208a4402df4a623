"""The checks before a deployment: one file for each concern."""
