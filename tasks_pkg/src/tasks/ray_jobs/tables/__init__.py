"""Datasets as tables in memory: CSV and Parquet files, folders, and checks of the free memory."""
