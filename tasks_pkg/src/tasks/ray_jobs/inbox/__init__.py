"""``process_new_data``: convert delivered files to checked Parquet files."""
