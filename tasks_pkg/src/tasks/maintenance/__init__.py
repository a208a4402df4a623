"""What the service does on its own: cleanup and notifications."""
