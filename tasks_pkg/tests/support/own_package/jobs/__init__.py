"""What travels to Ray."""
