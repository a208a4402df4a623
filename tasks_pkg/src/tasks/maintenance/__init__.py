"""What the service does for itself: cleanup and notifications."""
