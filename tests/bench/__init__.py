"""What a deployment costs and what it gives back, measured on this machine: ``make bench``."""
