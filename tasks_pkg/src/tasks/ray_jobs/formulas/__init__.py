"""The language of filters and derived columns: parsed here, computed by polars."""
