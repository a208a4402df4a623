"""``aggregate_data``: summaries of sources, and aggregates by group over all of them."""
