"""Datasets as tables in memory: CSV and Parquet, folders, and whether there is room for them."""
