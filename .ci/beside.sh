# shellcheck shell=bash
# Sourced: runs commands in parallel, a limited number at a time; the output of each is kept until it ends.
#   trap beside_end EXIT
#   beside_most=2
#   beside NAME COMMAND...   starts it as soon as fewer than beside_most run
#   beside_all               waits for the rest
# The first failure ends the script. A script may redefine the reports of a part: beside_passed LOG and
# beside_failed LOG.
beside_most=2
beside_logs=$(mktemp -d)
declare -A beside_running=() # part by process id
declare -A beside_began=()

beside_passed() { tail -n 20 "$1"; }
beside_failed() { cat "$1"; }

beside() {
  local part=$1
  shift
  while [ "${#beside_running[@]}" -ge "$beside_most" ]; do beside_next; done
  "$@" >"$beside_logs/$part" 2>&1 </dev/null &
  beside_running[$!]=$part
  beside_began[$part]=$SECONDS
}

beside_next() {
  local pid rc=0 part
  wait -n -p pid || rc=$?
  part=${beside_running[$pid]}
  unset "beside_running[$pid]"
  if [ "$rc" -ne 0 ]; then
    echo "==> $part FAILED after $((SECONDS - beside_began[$part])) s (exit $rc)"
    beside_failed "$beside_logs/$part"
    # What had failed in the parts that this one ends would otherwise be lost with them.
    for part in "${beside_running[@]}"; do
      grep -H ' FAILED ' "$beside_logs/$part" | sed "s,^$beside_logs/,==> ended: ," || true
    done
    exit 1
  fi
  echo "==> $part passed in $((SECONDS - beside_began[$part])) s"
  beside_passed "$beside_logs/$part"
}

beside_all() {
  while [ "${#beside_running[@]}" -gt 0 ]; do beside_next; done
}

beside_end() {
  local pid
  for pid in "${!beside_running[@]}"; do
    if kill "$pid" 2>/dev/null; then wait "$pid" || true; fi
  done
  rm -rf "$beside_logs"
}
