#!/usr/bin/env python3
"""Manage container hosts for tests, with real SSH and their own engine, without a registry.

A test host is a container that behaves like a small server: Debian from the
machine's own package mirror, sshd, a non-root user with password-less sudo,
and its own container engine. Deployments reach it by IP address, like any other
server. New machines (debian12-new, debian13-new) have neither sshd nor an
engine: only what the README requires of a machine.

    testhosts.py build DISTRIBUTION...       make the images that are missing
    testhosts.py up --state DIR --scenario NAME [--share PATH] HOST=DISTRIBUTION...
    testhosts.py down --scenario NAME        containers, volumes and network
    testhosts.py down --all
    testhosts.py prune                       the images too

Only the standard library is used, so that it runs before any environment does.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
ENTRYPOINT = HERE / "entrypoint.sh"
REPOSITORY = "celray-testhost"
LABEL = "celray.testhost"
USER = "operator"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
#: The variable with a Debian mirror, for machines whose apt has none.
MIRROR_VARIABLE = "CELRAY_DEBIAN_MIRROR"

#: The packages of a minimal Debian server, without the engine.
SERVER_PACKAGES = (
    "ca-certificates",
    "iproute2",
    "iptables",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
)
#: The packages that the README requires of a new machine; ca-certificates for this network's
#: certificates, and sudo for users other than root.
NEW_PACKAGES = ("ca-certificates", "git", "make", "python3", "python3-venv", "sudo")
#: Every capability that engine 20.10 knows, except SYS_RESOURCE: some virtual
#: machines do not have it, and so refuse `--privileged`.
CAPABILITIES = (
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
)


@dataclasses.dataclass(frozen=True)
class Network:
    """What the hosts of a scenario have in common.

    Parameters:
        name: of the network and, if they share a directory, of its volume.
        share: where each host sees that directory; empty: they share none.
    """

    scenario: str
    name: str
    share: str = ""


class HostError(Exception):
    """An error that a person can correct; the text says how."""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The definition of a test host.

    Parameters:
        suite: Debian release name.
        packages: packages in addition to the minimal system.
        in_docker_group: whether the user may use the engine without sudo.
    """

    suite: str
    packages: tuple[str, ...]
    in_docker_group: bool = False

    def digest(self) -> str:
        """Return twelve hex digits that depend on everything the image is made from."""
        content = json.dumps(
            [dataclasses.asdict(self), build_hooks(self), ENTRYPOINT.read_text()], sort_keys=True
        )
        return hashlib.sha256(content.encode()).hexdigest()[:12]


#: Both generations of compose, and both kinds of access to the engine: as a member of
#: the docker group (Debian 12), and through sudo only (Debian 13).
DISTRIBUTIONS = {
    "debian12": Distribution(
        "bookworm", (*SERVER_PACKAGES, "docker-compose", "docker.io"), in_docker_group=True
    ),
    "debian13": Distribution(
        "trixie", (*SERVER_PACKAGES, "docker-cli", "docker-compose", "docker.io")
    ),
    "debian12-new": Distribution("bookworm", NEW_PACKAGES),
    "debian13-new": Distribution("trixie", NEW_PACKAGES),
}


def build_hooks(distribution: Distribution) -> list[str]:
    """Return shell commands that finish the system; mmdebstrap runs each with $1 = its root."""
    groups = "sudo,docker" if distribution.in_docker_group else "sudo"
    return [
        # Debian already has a group of this name.
        f'chroot "$1" useradd -m -s /bin/bash -g {USER} -G {groups} {USER}',
        f"echo '{USER} ALL=(ALL) NOPASSWD: ALL' > \"$1/etc/sudoers.d/{USER}\"",
        f'chmod 0440 "$1/etc/sudoers.d/{USER}"',
        f'install -d -m 0700 "$1/home/{USER}/.ssh"',
        # Keys are made when a host starts, so that no two hosts share one.
        'rm -f "$1"/etc/ssh/ssh_host_*',
        'rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/usr/share/locale/*',
    ]


def fail(message: str) -> NoReturn:
    """Raise a HostError; type checkers know that this call never returns."""
    raise HostError(message)


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command and return its output.

    Raises:
        HostError: the command failed; the text has the command and its output.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        fail(f"`{' '.join(command)}` failed with exit code {done.returncode}:\n{said}")
    return done.stdout


def docker(*arguments: str, stdin: str | None = None) -> str:
    """Run the docker client against this machine's engine."""
    return run("docker", *arguments, stdin=stdin)


def need(program: str, package: str) -> None:
    """Require a program; as root install its package, otherwise name it in an error."""
    if shutil.which(program):
        return
    if os.geteuid() != 0:
        fail(f"{program} is missing. Install it with: sudo apt-get install {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "--yes", package]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not shutil.which(program):
        fail(f"{program} is missing and `apt-get install {package}` failed:\n{done.stderr}")


def mirror() -> str:
    """Return the Debian mirror that this machine's apt is configured with.

    Raises:
        HostError: apt has none, and CELRAY_DEBIAN_MIRROR is not set.
    """
    if os.environ.get(MIRROR_VARIABLE):
        return os.environ[MIRROR_VARIABLE]
    if shutil.which("apt-get"):
        lines = run(
            *("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"),
            *("Created-By: Packages", "Origin: Debian"),
        )
        for line in lines.splitlines():
            address, _, release = line.partition(" ")
            # -security and -updates are on other mirrors, or hold only some packages.
            if re.fullmatch(r"[a-z]+", release):
                return address
    fail(
        "This machine's apt knows no Debian mirror to build test hosts from. "
        f"Set one: {MIRROR_VARIABLE}=http://your.mirror/debian/"
    )


def apt_options() -> list[str]:
    """Return the proxy settings of this machine's apt, as mmdebstrap options."""
    options = []
    for scheme in ("http", "https"):
        shell = run("apt-config", "shell", "PROXY", f"Acquire::{scheme}::Proxy").strip()
        if shell:
            value = shell.partition("=")[2].strip("'")
            options.append(f'--aptopt=Acquire::{scheme}::Proxy "{value}"')
    return options


def image_of(name: str) -> str:
    """Return the image reference of a distribution; its tag is the digest of its definition."""
    if name not in DISTRIBUTIONS:
        fail(f"Unknown distribution {name!r}. Known: {', '.join(sorted(DISTRIBUTIONS))}")
    return f"{REPOSITORY}:{name}-{DISTRIBUTIONS[name].digest()}"


def build(name: str) -> str:
    """Make the image of a distribution unless it exists; return its reference."""
    image = image_of(name)
    if docker("image", "ls", "--quiet", image).strip():
        return image
    need("mmdebstrap", "mmdebstrap")
    distribution = DISTRIBUTIONS[name]
    print(f"testhosts: building {image} (about a minute)", flush=True)
    bootstrap = subprocess.Popen(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar"),
            f"--include={','.join(distribution.packages)}",
            *apt_options(),
            f'--customize-hook=install -m 0755 "{ENTRYPOINT}" "$1/usr/local/sbin/entrypoint"',
            *(f"--customize-hook={hook}" for hook in build_hooks(distribution)),
            *(distribution.suite, "-", mirror()),
        ],
        stdout=subprocess.PIPE,
    )
    settings = ('CMD ["/usr/local/sbin/entrypoint"]', f"LABEL {LABEL}=image")
    changes = [word for setting in settings for word in ("--change", setting)]
    # The image first gets a temporary name: a failed bootstrap must not leave a
    # broken image under the final name.
    pending = f"{image}.pending"
    done = subprocess.run(
        ["docker", "import", *changes, "-", pending],
        stdin=bootstrap.stdout,
        capture_output=True,
        text=True,
        check=False,
    )
    if bootstrap.wait() != 0 or done.returncode != 0:
        subprocess.run(["docker", "image", "rm", pending], capture_output=True, check=False)
        fail(f"{name} could not be built (mmdebstrap's output is above). {done.stderr}")
    docker("tag", pending, image)
    docker("image", "rm", pending)
    remove_superseded(name)
    return image


def remove_superseded(name: str) -> None:
    """Remove earlier images of a distribution, except those that a host still uses."""
    tag = re.compile(rf"{re.escape(name)}-[0-9a-f]{{12}}")
    listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY).split()
    for image in listed:
        if tag.fullmatch(image.partition(":")[2]) and image != image_of(name):
            subprocess.run(["docker", "image", "rm", image], capture_output=True, check=False)


def uplink_mtu(sysfs: Path = Path("/sys/class/net")) -> int:
    """Return the MTU of this machine's uplink, in bytes; 1500 without an uplink."""
    for line in run("ip", "-o", "route", "show", "default").splitlines():
        device = re.search(r"\bdev (\S+)", line)
        if device:
            return int((sysfs / device[1] / "mtu").read_text())
    return 1500


def make_key(state: Path) -> Path:
    """Make an SSH key for this run."""
    key = state / "id_ed25519"
    if not key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", LABEL, "-f", str(key))
    return key


def start(host: str, image: str, network: Network, key: Path) -> str:
    """Start one host, authorise the key, wait for SSH and the engine; return its address."""
    container = f"{network.name}-{host}"
    create(container, host, image, network)
    home = f"/home/{USER}/.ssh"
    docker(
        *("exec", "--interactive", container, "sh", "-c"),
        f"cat > {home}/authorized_keys && chown -R {USER}: {home} && chmod -R go= {home}",
        stdin=key.with_suffix(".pub").read_text(),
    )
    if network.share:
        docker("exec", container, "chown", f"{USER}:", network.share)
    wait_for(container, "sshd", "ss -Hltn 'sport = :22' | grep -q .")
    wait_for(container, "the engine", "! command -v dockerd >/dev/null || docker info >/dev/null")
    form = f"{{{{(index .NetworkSettings.Networks {json.dumps(network.name)}).IPAddress}}}}"
    return docker("inspect", "--format", form, container).strip()


def create(container: str, host: str, image: str, network: Network) -> None:
    """Start a host's container with a machine's rights (see CAPABILITIES)."""
    capabilities = [f"--cap-add={name}" for name in CAPABILITIES]
    bundle = [f"--volume={CA_BUNDLE}:/run/machine-ca.crt:ro"] if CA_BUNDLE.exists() else []
    docker(
        *("create", "--init", "--name", container, "--hostname", host, "--network", network.name),
        *("--label", f"{LABEL}={network.scenario}"),
        *capabilities,
        *(f"--security-opt={o}=unconfined" for o in ("seccomp", "apparmor", "systempaths")),
        "--cgroupns=private",
        "--device-cgroup-rule=a *:* rwm",
        # Its own volume, since overlay2 cannot be nested; `down` removes it.
        "--volume=/var/lib/docker",
        *([f"--volume={network.name}:{network.share}"] if network.share else []),
        *bundle,
        image,
    )
    docker("start", container)


def make_network(scenario: str, share: str = "") -> Network:
    """Make a scenario's network with the MTU of this machine's uplink, and the shared directory."""
    network = Network(scenario, f"celray-{scenario}".replace("_", "-"), share)
    label = ("--label", f"{LABEL}={scenario}")
    mtu = f"com.docker.network.driver.mtu={uplink_mtu()}"
    docker("network", "create", *label, "--opt", mtu, network.name)
    if share:
        docker("volume", "create", *label, network.name)
    return network


def up_new(name: str, scenario: str) -> str:
    """Start one new machine, which is reached only by `docker exec`; return its container."""
    image = build(name)
    down(scenario)
    network = make_network(scenario)
    container = f"{network.name}-{name}"
    create(container, name, image, network)
    wait_for(container, "its first process", "test -e /run/ready")
    return container


def wait_for(container: str, what: str, test: str, seconds: float = 60) -> None:
    """Wait until a shell test succeeds inside a host.

    Raises:
        HostError: it did not succeed within `seconds`; the text has the end of the host's logs.
    """
    deadline = time.monotonic() + seconds
    command = ["docker", "exec", container, "sh", "-c", test]
    while subprocess.run(command, capture_output=True, check=False).returncode != 0:
        if time.monotonic() > deadline:
            logs = "docker logs --tail 20 {0} 2>&1; docker exec {0} tail -20 /var/log/dockerd.log"
            said = subprocess.run(
                ["sh", "-c", logs.format(container)], capture_output=True, text=True, check=False
            ).stdout
            fail(f"{what} did not come up in {container} within {seconds:.0f} s:\n{said}")
        time.sleep(0.3)


def up(state: Path, scenario: str, wanted: dict[str, str], share: str) -> None:
    """Start a scenario's hosts and write the files for their access.

    These are, in `state`: id_ed25519, known_hosts, ssh_config (for people and
    testinfra) and instance_config.yml (for molecule).
    """
    images = {host: build(distribution) for host, distribution in wanted.items()}
    down(scenario)
    state.mkdir(parents=True, exist_ok=True)
    key = make_key(state)
    network = make_network(scenario, share)
    instances, ssh_config, known = [], [], []
    for host, image in images.items():
        address = start(host, image, network, key)
        public = docker(
            "exec", f"{network.name}-{host}", "cat", "/etc/ssh/ssh_host_ed25519_key.pub"
        ).split()
        known.append(f"{address},{host} {public[0]} {public[1]}")
        ssh_config.append(
            f"Host {host} {address}\n  HostName {address}\n  User {USER}\n  IdentityFile {key}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {state / 'known_hosts'}\n"
        )
        instances.append(
            {
                "instance": host,
                "address": address,
                "user": USER,
                "port": 22,
                "identity_file": str(key),
            }
        )
        print(f"testhosts: {host} ({wanted[host]}) is up at {address}", flush=True)
    (state / "known_hosts").write_text("\n".join(known) + "\n")
    (state / "ssh_config").write_text("\n".join(ssh_config))
    # JSON is YAML.
    (state / "instance_config.yml").write_text(json.dumps(instances, indent=1) + "\n")


def down(scenario: str | None) -> None:
    """Remove the hosts, volumes and network of a scenario (None: of every scenario)."""
    chosen = f"label={LABEL}={scenario}" if scenario else f"label={LABEL}"
    containers = docker("ps", "--all", "--quiet", "--filter", chosen).split()
    if containers:
        docker("rm", "--force", "--volumes", *containers)
    for kind in ("network", "volume"):
        found = docker(kind, "ls", "--quiet", "--filter", chosen).split()
        if found:
            docker(kind, "rm", *found)


def prune() -> None:
    """Remove every test host and every image that this program made."""
    down(None)
    images = docker("image", "ls", "--quiet", REPOSITORY).split()
    if images:
        docker("image", "rm", "--force", *sorted(set(images)))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    builds = commands.add_parser("build", help="make the images that are missing")
    builds.add_argument("distribution", nargs="*", default=["debian12", "debian13"])
    ups = commands.add_parser("up", help="start hosts and write down how to reach them")
    ups.add_argument("--state", type=Path, required=True)
    ups.add_argument("--scenario", required=True)
    ups.add_argument("--share", default="", help="where all hosts see one and the same directory")
    ups.add_argument("host", nargs="+", metavar="HOST=DISTRIBUTION")
    downs = commands.add_parser("down", help="remove containers, volumes and network")
    scope = downs.add_mutually_exclusive_group(required=True)
    scope.add_argument("--scenario")
    scope.add_argument("--all", action="store_true")
    commands.add_parser("prune", help="remove hosts and images")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run one command; on failure print one readable error and return exit code 1."""
    options = parse(arguments)
    try:
        need("docker", "docker.io")
        if options.command == "build":
            for name in options.distribution:
                print(build(name))
        elif options.command == "up":
            wanted = dict(item.split("=", 1) for item in options.host)
            up(options.state.resolve(), options.scenario, wanted, options.share)
        elif options.command == "down":
            down(None if options.all else options.scenario)
        else:
            prune()
    except HostError as error:
        print(f"testhosts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
