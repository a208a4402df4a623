"""Beat: RedBeat's scheduler, the schedule's settings, and what Beat writes down for others."""
