"""``process_large_csv``: one large CSV file through filter and derived columns."""
