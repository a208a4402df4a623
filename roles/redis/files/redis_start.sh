#!/bin/sh
# Starts Redis, and opens its port once its data are there and the rules hold (ADR 0034):
#
#   redis_start.sh CONFIG RULES PORT
#
# Redis (before 8.6: redis/redis#14541) replays the transactions of its append-only file as the user
# `default`, and leaves out what that user may not do: scripts and MULTI of everybody else would be lost
# at each restart. So it loads behind a socket of its own, with a `default` that may do everything and
# that nobody can become; then it takes RULES, then it opens PORT.
set -eu
umask 077
place=${TMPDIR:-/tmp}
rules=$place/users.acl
socket=$place/redis.sock
config=$1 wanted=$2 port=$3

# Who changes the one for the other, known to this script alone.
REDISCLI_AUTH=$(od -An -vtx1 -N32 /dev/urandom | tr -d ' \n')
export REDISCLI_AUTH
hash=$(printf %s "$REDISCLI_AUTH" | sha256sum | cut -d ' ' -f 1)
opener="user opener on #$hash resetkeys resetchannels -@all +ping +acl|load +config|set"

ask() { redis-cli -s "$socket" --user opener --no-auth-warning "$@" 2>&1; }

# must WHAT COMMAND...: end Redis, with its own words, where it does not take the command.
must() {
  what=$1
  shift
  said=$(ask "$@")
  [ "$said" = OK ] && return
  echo "redis_start.sh: $what: $said" >&2
  kill "$$"
  exit 1
}

open_when_loaded() {
  until [ "$(ask ping)" = PONG ]; do
    kill -0 "$$" 2>/dev/null || exit 1 # Redis has ended, and has said why
    sleep 0.1
  done
  { cat "$wanted"; echo "$opener"; } >"$rules"
  must "the rules of $wanted" acl load
  must "port $port" config set port "$port"
  cat "$wanted" >"$rules"
  ask acl load >/dev/null || true # which ends this very connection
}

{
  grep -v '^user default ' "$wanted"
  echo "$opener"
  echo 'user default off ~* &* +@all'
} >"$rules"
open_when_loaded &
unset REDISCLI_AUTH
exec redis-server "$config" --port 0 --unixsocket "$socket" --unixsocketperm 700 --aclfile "$rules"
