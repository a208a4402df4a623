"""The message headers that this package adds."""

#: The publisher's clock (seconds since the epoch), from which a task tells its queue wait.
PUBLISHED_AT = "celray_published_at"

#: How many holders a message has outlived.
LAPSES = "celray_lapses"
