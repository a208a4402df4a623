#!/usr/bin/env python3
"""Container hosts for tests: real SSH, a real engine of their own, no registry.

A test host is a container that behaves like a small server: Debian from the
machine's own package mirror, sshd, a non-root user with password-less sudo,
and its own container engine. Deployments reach it by IP address, like any other
server. The new ones (debian12-new, debian13-new) have neither sshd nor an
engine: what the README asks of a machine, and nothing else.

    testhosts.py build DISTRIBUTION...       make the images that are missing
    testhosts.py up --state DIR --scenario NAME HOST=DISTRIBUTION...
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
#: Names an apt mirror where the machine's own apt has none of Debian's.
MIRROR_VARIABLE = "CELRAY_DEBIAN_MIRROR"

#: What a minimal Debian server has besides its engine.
SERVER_PACKAGES = (
    "ca-certificates",
    "iproute2",
    "iptables",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
)
#: What the README asks of a new machine, and nothing else. The certificates are this network's, and
#: sudo is how a user of it is no root.
NEW_PACKAGES = ("ca-certificates", "git", "make", "python3", "python3-venv", "sudo")
#: Every capability that engine 20.10 knows, less SYS_RESOURCE: some virtual
#: machines withhold that one, and with it `--privileged`.
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


class HostError(Exception):
    """Something the person at the keyboard can put right; the text says how."""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """What a test host is made of.

    Parameters:
        suite: Debian release name.
        packages: installed on top of the minimal system.
        in_docker_group: whether the user may talk to the engine without sudo.
    """

    suite: str
    packages: tuple[str, ...]
    in_docker_group: bool = False

    def digest(self) -> str:
        """Twelve hex digits that change with anything the image is made from."""
        content = json.dumps(
            [dataclasses.asdict(self), build_hooks(self), ENTRYPOINT.read_text()], sort_keys=True
        )
        return hashlib.sha256(content.encode()).hexdigest()[:12]


#: Both generations of compose, and both ways to reach an engine: as a member of
#: the docker group (Debian 12) and through sudo only (Debian 13).
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
    """Shell commands that finish the system; mmdebstrap runs each with $1 = its root."""
    groups = "sudo,docker" if distribution.in_docker_group else "sudo"
    return [
        # Debian has a group of this name already.
        f'chroot "$1" useradd -m -s /bin/bash -g {USER} -G {groups} {USER}',
        f"echo '{USER} ALL=(ALL) NOPASSWD: ALL' > \"$1/etc/sudoers.d/{USER}\"",
        f'chmod 0440 "$1/etc/sudoers.d/{USER}"',
        f'install -d -m 0700 "$1/home/{USER}/.ssh"',
        # Keys are made when a host starts: two hosts never share one.
        'rm -f "$1"/etc/ssh/ssh_host_*',
        'rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/usr/share/locale/*',
    ]


def fail(message: str) -> NoReturn:
    """Raise a HostError (an expression that type checkers know never returns)."""
    raise HostError(message)


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command and return its output.

    Raises:
        HostError: with the command and what it said, when it fails.
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
    """Make sure that a program is there: install its package as root, else name it."""
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
    """The Debian mirror that this machine's apt is configured with.

    Raises:
        HostError: where apt has none and CELRAY_DEBIAN_MIRROR is unset.
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
            # -security and -updates live elsewhere, or hold only a part.
            if re.fullmatch(r"[a-z]+", release):
                return address
    fail(
        "This machine's apt knows no Debian mirror to build test hosts from. "
        f"Name one: {MIRROR_VARIABLE}=http://your.mirror/debian/"
    )


def apt_options() -> list[str]:
    """The proxy settings of this machine's apt, as mmdebstrap options."""
    options = []
    for scheme in ("http", "https"):
        shell = run("apt-config", "shell", "PROXY", f"Acquire::{scheme}::Proxy").strip()
        if shell:
            value = shell.partition("=")[2].strip("'")
            options.append(f'--aptopt=Acquire::{scheme}::Proxy "{value}"')
    return options


def image_of(name: str) -> str:
    """Image reference of a distribution: its tag is the digest of its definition."""
    if name not in DISTRIBUTIONS:
        fail(f"Unknown distribution {name!r}. Known: {', '.join(sorted(DISTRIBUTIONS))}")
    return f"{REPOSITORY}:{name}-{DISTRIBUTIONS[name].digest()}"


def build(name: str) -> str:
    """Make the image of a distribution unless it is there; return its reference."""
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
    # Imported under a name of its own first: a bootstrap that dies half way
    # must not leave a broken image under the final name.
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
        fail(f"{name} could not be built (mmdebstrap's words are above). {done.stderr}")
    docker("tag", pending, image)
    docker("image", "rm", pending)
    remove_superseded(name)
    return image


def remove_superseded(name: str) -> None:
    """Remove earlier images of a distribution, except one that a host still runs from."""
    tag = re.compile(rf"{re.escape(name)}-[0-9a-f]{{12}}")
    listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY).split()
    for image in listed:
        if tag.fullmatch(image.partition(":")[2]) and image != image_of(name):
            subprocess.run(["docker", "image", "rm", image], capture_output=True, check=False)


def uplink_mtu(sysfs: Path = Path("/sys/class/net")) -> int:
    """Largest packet, in bytes, that leaves this machine whole; 1500 without an uplink."""
    for line in run("ip", "-o", "route", "show", "default").splitlines():
        device = re.search(r"\bdev (\S+)", line)
        if device:
            return int((sysfs / device[1] / "mtu").read_text())
    return 1500


def make_key(state: Path) -> Path:
    """An SSH key of this run alone."""
    key = state / "id_ed25519"
    if not key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", LABEL, "-f", str(key))
    return key


def start(host: str, image: str, scenario: str, network: str, key: Path) -> str:
    """Start one host, let the key in, wait for SSH and the engine; return its address."""
    container = f"{network}-{host}"
    create(container, host, image, scenario, network)
    home = f"/home/{USER}/.ssh"
    docker(
        *("exec", "--interactive", container, "sh", "-c"),
        f"cat > {home}/authorized_keys && chown -R {USER}: {home} && chmod -R go= {home}",
        stdin=key.with_suffix(".pub").read_text(),
    )
    wait_for(container, "sshd", "ss -Hltn 'sport = :22' | grep -q .")
    wait_for(container, "the engine", "! command -v dockerd >/dev/null || docker info >/dev/null")
    form = f"{{{{(index .NetworkSettings.Networks {json.dumps(network)}).IPAddress}}}}"
    return docker("inspect", "--format", form, container).strip()


def create(container: str, host: str, image: str, scenario: str, network: str) -> None:
    """Start a host's container, which may do what a machine may (see CAPABILITIES)."""
    capabilities = [f"--cap-add={name}" for name in CAPABILITIES]
    bundle = [f"--volume={CA_BUNDLE}:/run/machine-ca.crt:ro"] if CA_BUNDLE.exists() else []
    docker(
        *("create", "--init", "--name", container, "--hostname", host, "--network", network),
        *("--label", f"{LABEL}={scenario}"),
        *capabilities,
        *(f"--security-opt={o}=unconfined" for o in ("seccomp", "apparmor", "systempaths")),
        "--cgroupns=private",
        "--device-cgroup-rule=a *:* rwm",
        # A volume of its own: overlay2 does not stack, and `down` removes it.
        "--volume=/var/lib/docker",
        *bundle,
        image,
    )
    docker("start", container)


def make_network(scenario: str) -> str:
    """A scenario's own network, with packets that leave this machine whole; its name."""
    network = f"celray-{scenario}".replace("_", "-")
    docker(
        *("network", "create", "--label", f"{LABEL}={scenario}"),
        *("--opt", f"com.docker.network.driver.mtu={uplink_mtu()}", network),
    )
    return network


def up_new(name: str, scenario: str) -> str:
    """Bring one new machine up, which is reached by `docker exec` alone; its container."""
    image = build(name)
    down(scenario)
    network = make_network(scenario)
    container = f"{network}-{name}"
    create(container, name, image, scenario, network)
    wait_for(container, "its first process", "test -e /run/ready")
    return container


def wait_for(container: str, what: str, test: str, seconds: float = 60) -> None:
    """Wait until a shell test succeeds inside a host.

    Raises:
        HostError: after `seconds`, with the end of the host's own logs.
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


def up(state: Path, scenario: str, wanted: dict[str, str]) -> None:
    """Bring a scenario's hosts up and write down how to reach them.

    Writes into `state`: id_ed25519, known_hosts, ssh_config (for people and
    testinfra) and instance_config.yml (for molecule).
    """
    images = {host: build(distribution) for host, distribution in wanted.items()}
    down(scenario)
    state.mkdir(parents=True, exist_ok=True)
    key = make_key(state)
    network = make_network(scenario)
    instances, ssh_config, known = [], [], []
    for host, image in images.items():
        address = start(host, image, scenario, network, key)
        public = docker(
            "exec", f"{network}-{host}", "cat", "/etc/ssh/ssh_host_ed25519_key.pub"
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
    """Remove a scenario's hosts, their volumes and their network (None: of every scenario)."""
    chosen = f"label={LABEL}={scenario}" if scenario else f"label={LABEL}"
    containers = docker("ps", "--all", "--quiet", "--filter", chosen).split()
    if containers:
        docker("rm", "--force", "--volumes", *containers)
    networks = docker("network", "ls", "--quiet", "--filter", chosen).split()
    if networks:
        docker("network", "rm", *networks)


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
    ups.add_argument("host", nargs="+", metavar="HOST=DISTRIBUTION")
    downs = commands.add_parser("down", help="remove containers, volumes and network")
    scope = downs.add_mutually_exclusive_group(required=True)
    scope.add_argument("--scenario")
    scope.add_argument("--all", action="store_true")
    commands.add_parser("prune", help="remove hosts and images")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run one command; exit code 1 with one readable error when it cannot be done."""
    options = parse(arguments)
    try:
        need("docker", "docker.io")
        if options.command == "build":
            for name in options.distribution:
                print(build(name))
        elif options.command == "up":
            wanted = dict(item.split("=", 1) for item in options.host)
            up(options.state.resolve(), options.scenario, wanted)
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
