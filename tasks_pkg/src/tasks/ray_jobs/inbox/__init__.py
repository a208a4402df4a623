"""``process_new_data``: delivered files become checked Parquet files."""
