"""What an operator asks: status, verify, health; ``python -m tasks.operations``."""
