#!/bin/sh
# First process of a test host (below docker-init): makes the cgroups writable,
# starts the container engine where it is installed, then serves SSH.
#
# A container that may not be privileged gets /sys/fs/cgroup read-only. It has
# its own cgroup namespace, so opening it gives away nothing of the machine.
set -eu

open_cgroups() {
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    mount -o remount,bind,rw /sys/fs/cgroup
    # cgroup v2: a group that has processes cannot hand controllers down.
    mkdir -p /sys/fs/cgroup/init
    while read -r pid; do
      echo "$pid" > /sys/fs/cgroup/init/cgroup.procs 2> /dev/null || true
    done < /sys/fs/cgroup/cgroup.procs
    tr ' ' '\n' < /sys/fs/cgroup/cgroup.controllers | while read -r controller; do
      echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control 2> /dev/null || true
    done
    return
  fi
  for hierarchy in /sys/fs/cgroup/*/; do
    if mountpoint -q "$hierarchy"; then
      mount -o remount,bind,rw "$hierarchy"
    fi
  done
}

open_cgroups
# The machine's certificate bundle: its network may re-sign TLS.
if [ -s /run/machine-ca.crt ]; then
  cp /run/machine-ca.crt /etc/ssl/certs/ca-certificates.crt
fi
if [ ! -x /usr/sbin/sshd ]; then
  # A new machine: nothing runs on it yet. Engines of its own come and go.
  touch /run/ready
  exec sleep infinity
fi
ssh-keygen -A > /dev/null
mkdir -p /run/sshd
if command -v dockerd > /dev/null; then
  rm -f /var/run/docker.pid /run/docker/containerd/containerd.pid
  # Not through the init script: its ulimit needs CAP_SYS_RESOURCE, which a
  # virtual machine may withhold.
  dockerd --pidfile /var/run/docker.pid > /var/log/dockerd.log 2>&1 &
fi
exec /usr/sbin/sshd -D -e
