"""Redis keys in the broker's database where Beat records its state."""

#: Redis key with the time of the last tick (seconds since the epoch), read by `tasks.ops`.
LAST_TICK_KEY = "celray:beat:last_tick"

#: Redis hash from entry name to how its last missed run was handled, as JSON
#: (:func:`tasks.beat.scheduler.missed_run`).
MISSED_KEY = "celray:beat:missed"

#: Redis hash from the name of an entry that cannot run to the reason.
REFUSED_KEY = "celray:beat:refused"
