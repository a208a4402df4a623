"""Messages: their envelope, the task they describe, their size; one sub-package per broker."""
