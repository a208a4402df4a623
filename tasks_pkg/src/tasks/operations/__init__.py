"""Commands for operators: status, verify, health; ``python -m tasks.operations``."""
