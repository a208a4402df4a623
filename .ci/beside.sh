# shellcheck shell=bash
# Sourced: one command runs beside what follows; what it printed comes when it is waited for.
#   trap beside_end EXIT; beside COMMAND...; something else; beside_wait 'title'
beside_log=$(mktemp)
beside_pid=

beside() {
  "$@" >"$beside_log" 2>&1 &
  beside_pid=$!
}

# Print the title and the command's output, and return its exit code.
beside_wait() {
  local rc=0
  [ -n "$beside_pid" ] || return 0
  wait "$beside_pid" || rc=$?
  beside_pid=
  printf '==> %s\n' "$1"
  cat "$beside_log"
  return "$rc"
}

beside_end() {
  if [ -n "$beside_pid" ] && kill "$beside_pid" 2>/dev/null; then wait "$beside_pid" || true; fi
  rm -f "$beside_log"
}
