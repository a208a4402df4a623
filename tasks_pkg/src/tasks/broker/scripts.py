"""What runs inside Redis, each script one atomic step; the times are Redis's own clock.

Two keys of the broker's database hold what workers work on:

``celray:held``
    A hash from delivery tag to ``[message, "", queue]``, in kombu's own form; the message in it is
    what stood in the queue, byte for byte, and need not be JSON. A long message stands there
    alone, and its tag ends with ``@`` and the queue.
``celray:leases``
    A sorted set of the same tags, scored with the time of the last renewal (seconds).

They are not kombu's ``unacked`` and ``unacked_index``: a worker of an older release, or of
somebody else, renews nothing, and its messages must not be taken from it after seconds.
"""

from pathlib import Path
from typing import Final


def _lua(name: str) -> str:
    """Return the text of a script, which lies beside this file."""
    return Path(__file__).with_name("lua").joinpath(f"{name}.lua").read_text(encoding="utf-8")


HELD: Final = "celray:held"
LEASES: Final = "celray:leases"
DEAD: Final = "celray:dead"
REFUSED: Final = "celray:refused"
COUNTS: Final = "celray:counts"

#: KEYS the queues' lists; ARGV seconds added to the lease, most messages, the names of held and
#: leases, what the new tags begin with and their first number, the queue of each list, tags that
#: are done (a fetch takes them along). Gives queue, tag, message, queue, tag, message, ...
#:
#: Nothing is decoded: a message may be any bytes. So the tags are ours: what a message calls its
#: own is its sender's choice, and two could share one. A long message is recorded as it is, with
#: its queue in the tag: to join a record of it, Lua would hold it three times. After a mebibyte no
#: further one is fetched, or a few long ones would take all the memory that Redis has.
#:
#: An empty answer has read every list with EXISTS, so that a tracking client is told when one gets
#: a message. The two names are no KEYS, because Redis 7.0 tracks all of these, read or not: any
#: message of any queue would then wake every worker. A key that is no list is put out of the way
#: for a week, under ASIDE and its name; its answer has no tag, and the new name for a message.
FETCH: Final = _lua("fetch")

#: KEYS leases; ARGV seconds added to the lease, tags. Gives the tags that are no longer there.
#: A full Redis refuses a script's first write if it may need memory, and no later one: ZREM first.
RENEW: Final = _lua("renew")

#: KEYS held, leases; ARGV tags: they are done.
ACK: Final = _lua("ack")

#: KEYS held, leases, the queue's list; ARGV tag, message, "left" (behind the others) or "right"
#: (first of all), the lease's expected score or "". Gives 1, or 0 when somebody was faster.
RESTORE: Final = _lua("restore")

#: KEYS held, leases; ARGV tag, the queue's list, message, tag, list, message, ...: each goes back
#: to the front of its list, the last one named first of all. Gives how many were still held.
RESTORE_ALL: Final = _lua("restore_all")

#: KEYS leases; ARGV tag, expected score. Renews the lease if it is still as seen; gives 1 or 0.
CLAIM: Final = _lua("claim")

#: KEYS held, leases, dead; ARGV tag, letter's id, letter: a held message becomes a dead letter.
BURY: Final = _lua("bury")

#: KEYS held, leases, dead, refused (the letters of messages that were refused, by time), counts;
#: ARGV tag, letter's id, letter, most such letters, seconds that one is kept. A held message that
#: cannot be understood becomes a dead letter; the oldest of these make room.
REFUSE: Final = _lua("refuse")

#: KEYS dead, the queue's list; ARGV letter's id, the letter as seen, message. Gives 1, or 0 when
#: the letter is gone or another.
REPLAY: Final = _lua("replay")

#: KEYS a task's result; ARGV what it was: it is removed if it still is that.
FORGET: Final = _lua("forget")

#: Redis refuses what may need memory once it is full. What a worker writes lets it finish what it
#: has, which is what empties the queues; so that may take a tenth more than ``maxmemory``. Only the
#: service's own user may ask how much is used; a client's gets the refusal.
_WITHIN_RESERVE: Final = _lua("within_reserve")

#: KEYS the queue's list; ARGV message.
PUBLISH: Final = (
    _WITHIN_RESERVE + _lua("publish")
)

#: KEYS sets; ARGV member. Adds it to each, also in a full Redis: it is a few bytes, and without it
#: nobody gets an answer of a worker.
BIND: Final = _lua("bind")

#: KEYS the set of cancelled ids, the result of each; ARGV now, the oldest time that is kept, the
#: most ids, seconds to keep a result (0: for ever), and for each id the id and the result that says
#: so, or "" where the task is known to have begun. Notes them, and stores the result where nothing
#: is there that says how the task goes on or ended. Also in a full Redis: the set is bounded, the
#: result is shorter than the message that goes, and cancelling is how room is made.
CANCEL: Final = _lua("cancel").replace("BEYOND", "SUCCESS FAILURE RETRY REVOKED STARTED PROGRESS")

#: KEYS the result's key; ARGV seconds to keep it (0: for ever), result.
STORE: Final = (
    _WITHIN_RESERVE + _lua("store")
)

#: KEYS a chord's body, its size; ARGV body, size (0: not known), seconds to keep them (0: for
#: ever). What is there stays.
CHORD: Final = _lua("chord")

#: How a stored success begins: Celery writes the state first (``tests/test_ahead.py``).
SUCCEEDED: Final = '{"status": "SUCCESS",'

#: KEYS the result's key, the set of cancelled ids; ARGV result, seconds to keep it (0: for ever),
#: how a success begins; of a start that must not be a copy's (``tasks.duplicates``): the message's
#: digest, the run, the oldest record that counts; and of a start, which a cancelled task must not
#: make, the task's id. A success is final: a task that ran twice must not take it back. Gives 2 for
#: a cancelled task and 1 for a copy, of which nothing is stored: the first to begin is the one that
#: runs. Two copies never have one tag: each fetch makes its own.
STATE: Final = _lua("state")
STATE_WITHIN_RESERVE: Final = _WITHIN_RESERVE + STATE


def within_reserve(script: str) -> str:
    """Let a small script of somebody else's write also while Redis is full, without a bound."""
    return "#!lua flags=allow-oom\n" + script
