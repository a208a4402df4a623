"""Shared by training, search, prediction and registry: features, metrics, files, signature."""
