"""The message headers that this package adds."""

#: The publisher's clock (seconds since the epoch), from which a task computes its time in the
#: queue.
PUBLISHED_AT = "celray_published_at"

#: How many times a message's lease has lapsed.
LAPSES = "celray_lapses"

#: How often workers with old code have passed on this task, which they do not know.
PASSED_ON = "celray_passed_on"

#: How many times a message's lease has lapsed before its task began.
UNBEGUN = "celray_unbegun"
