"""Beat: RedBeat's scheduler, the schedule's settings, and the records that Beat keeps in Redis."""
