"""What the tasks take and return: names, units, bounds."""
