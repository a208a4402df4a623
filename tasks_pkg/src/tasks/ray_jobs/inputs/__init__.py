"""The files that a caller's path names, checked against the roots. Standard library only."""
