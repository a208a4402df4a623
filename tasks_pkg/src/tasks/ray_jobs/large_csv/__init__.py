"""``process_large_csv``: filter one large CSV file and add derived columns."""
