# Prints the Makefile's targets by group, aligned: "##@ Group" opens one, "target: ... ## text" is a line.
BEGIN {
  FS = ":.*## "
  print "celray: a Celery and Ray task service on ordinary Linux hosts\n"
  print "usage: make <operation> [HOST=address] [SSH_USER=user] [ENV=inventory] ..."
}
/^##@ / { printf "\n%s\n", substr($0, 5) }
/^[a-z-]+:.*## / { printf "  %-13s%s\n", $1, $2 }
END {
  print "\nVariables"
  printf "  %-13s%s\n", "HOST", "the machine to work on, over SSH; unset: this machine, without SSH"
  printf "  %-13s%s\n", "SSH_USER", "the user there (default: ssh's own choice)"
  printf "  %-13s%s\n", "ENV", "which inventory: a folder of inventory/ (default: single)"
  printf "  %-13s%s\n", "WHAT", "a service, such as redis, ray, flower or worker-ml; make status lists them"
  printf "  %-13s%s\n", "WORKER", "a worker of the catalogue, with CONCURRENCY= or REPLICAS="
  printf "  %-13s%s\n", "TAIL", "how many lines of its log, or of the history (default: 200)"
  printf "  %-13s%s\n", "TO", "the version for rollback or diff; make history lists them"
  printf "  %-13s%s\n", "LIMIT", "some hosts of the inventory, by commas, for logs, shell, restart, drain, undrain, stop, start"
  printf "  %-13s%s\n", "WAIT", "drain: the longest time for tasks that run, in seconds (default: 600)"
  printf "  %-13s%s\n", "FORCE=yes", "drain, also if a queue is left without a worker"
  printf "  %-13s%s\n", "CONFIRM=yes", "destroy without asking; PURGE=yes removes the data too; queues: remove what waits"
  printf "  %-13s%s\n", "NAME, DEST", "new-tasks: the package's name and its directory"
  printf "  %-13s%s\n", "ARGS", "more options for ansible-playbook, such as ARGS=-K for a sudo password"
  print "\nExamples"
  print "  make deploy                                    on this machine"
  print "  make check HOST=10.0.0.84 SSH_USER=deploy      what would change there"
  print "  make logs WHAT=worker-ml"
}
