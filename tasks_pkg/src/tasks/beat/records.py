"""Where Beat writes down how it is, for others to read: keys in the broker's database."""

#: Redis key with the time of the last tick (seconds since the epoch), read by `tasks.ops`.
LAST_TICK_KEY = "celray:beat:last_tick"

#: Redis hash from entry name to what became of its last missed run, as JSON
#: (:func:`tasks.beat.scheduler.missed_run`).
MISSED_KEY = "celray:beat:missed"

#: Redis hash from the name of an entry that cannot run to what is wrong with it.
REFUSED_KEY = "celray:beat:refused"
