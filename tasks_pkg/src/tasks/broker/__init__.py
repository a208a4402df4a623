"""Messages: their outer form, what they say of a task, their size; and one room per broker."""
