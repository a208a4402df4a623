"""What a deployment needs, and what speaks against it: one file for each concern."""
