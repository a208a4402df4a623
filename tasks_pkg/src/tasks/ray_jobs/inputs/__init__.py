"""Which files a caller's path means, and that they lie under the roots. Standard library only."""
