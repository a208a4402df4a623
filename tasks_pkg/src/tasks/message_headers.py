"""The message headers that this package adds."""

#: The publisher's clock (seconds since the epoch), from which a task tells its queue wait.
PUBLISHED_AT = "celray_published_at"

#: How many holders a message has outlived.
LAPSES = "celray_lapses"

#: How often workers of old code have left this task, which they do not know, to another.
PASSED_ON = "celray_passed_on"

#: How many holders a message has outlived before its task began.
UNBEGUN = "celray_unbegun"
