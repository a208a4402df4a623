"""The language of filters and derived columns: parsed here, evaluated by polars."""
