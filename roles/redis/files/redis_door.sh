#!/bin/sh
# Closes connections that have not logged in, before they are so many that nobody else gets in (ADR 0029):
#
#   redis_door.sh ADDRESS PORT FILE UNPROVEN SECONDS MOST
#
# Twice a second, over one connection that is there before any flood: of each source at most UNPROVEN
# connections that have run no command yet, none of them for longer than SECONDS; and at most MOST with
# a client's password. Redis has no bound of its own but the one for all (maxclients). Users of the
# service (celray, operator, admin) are never touched; who has come within this second has its time to log
# in, unless its source has sixteen times too many. FILE holds the password of the user `door`.
set -u
fifo=${TMPDIR:-/tmp}/redis-door.$$
rm -f "$fifo"
mkfifo -m 600 "$fifo"
trap 'rm -f "$fifo"' EXIT
trap 'exit 0' INT TERM

# mawk, which Debian has, would wait for 4 kB of answers.
interactive=
case $(awk -W version 2>&1 </dev/null) in mawk*) interactive='-W interactive' ;; esac

# What awk prints is what redis-cli sends, and the other way round. Oldest connections come first.
while :; do
  # shellcheck disable=SC2086,SC2094 # one option or none; a pipe on purpose: the one end is the other's start
  redis-cli -h "$1" -p "$2" <"$fifo" 2>&1 |
    awk $interactive -v file="$3" -v unproven="$4" -v seconds="$5" -v most="$6" '
      function ask() { print "CLIENT LIST TYPE normal\nPING"; fflush() }
      BEGIN { getline password <file; close(file); print "AUTH door " password; ask() }
      /^id=/ {
        split("", is)
        for (i = 1; i <= NF; i++) { at = index($i, "="); is[substr($i, 1, at - 1)] = substr($i, at + 1) }
        if (is["user"] != "default") next
        source = is["addr"]; sub(/:[0-9]+$/, "", source)
        if (is["cmd"] == "NULL" || is["cmd"] == "auth" || is["cmd"] == "hello") {
          many = ++waits[source] > unproven && (is["age"] + 0 >= 1 || waits[source] > 16 * unproven)
          if (many || is["age"] + 0 >= seconds) close_it[is["id"]] = source
        } else if (++uses[source] > most) close_it[is["id"]] = source
        next
      }
      /^PONG/ {
        closed = 0
        for (id in close_it) { print "CLIENT KILL ID " id; closed++; of = close_it[id] }
        if (closed > unproven) print "celray: closed " closed " connections, of " of > "/dev/stderr"
        fflush()
        split("", close_it); split("", waits); split("", uses)
        system("sleep 0.5")
        ask()
        next
      }
      /^(Error|Could not|Warning|WRONGPASS|LOADING|BUSY|NOAUTH|NOPERM)/ { exit 1 }
    ' >"$fifo"
  sleep 1
done
