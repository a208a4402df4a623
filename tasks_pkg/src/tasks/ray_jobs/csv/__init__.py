"""The one reader of CSV: dialect, types, codes, dates, byte ranges; every task reads through it."""
