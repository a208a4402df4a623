"""An SSH server on loopback with a key of its own, so that a deploy over SSH can be measured."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.operations import BenchError, run


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _program() -> Iterator[str]:
    """The path of sshd; where there is none it is installed, and removed again afterwards."""
    there = shutil.which("sshd", path="/usr/sbin")
    if there:
        yield there
        return
    run(".ci/apt", "openssh-server")
    try:
        yield "/usr/sbin/sshd"
    finally:
        run(
            "apt-get",
            "purge",
            "--yes",
            "openssh-server",
            extra={"DEBIAN_FRONTEND": "noninteractive"},
        )
        shutil.rmtree("/run/sshd", ignore_errors=True)


@contextmanager
def ssh_server() -> Iterator[dict[str, str]]:
    """Start sshd for the current user; yields the environment with which Ansible reaches it.

    Raises:
        BenchError: where there is no sshd and it cannot be installed, or it does not come up.
    """
    with _program() as sshd, _server(sshd) as reach:
        yield reach


@contextmanager
def _server(sshd: str) -> Iterator[dict[str, str]]:
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    user, port = pwd.getpwuid(os.geteuid()).pw_name, _free_port()
    with tempfile.TemporaryDirectory(prefix="celray-bench-") as name:
        folder = Path(name)
        for key in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
        (folder / "authorized_keys").write_bytes((folder / "user.pub").read_bytes())
        host_key = (folder / "host.pub").read_text(encoding="utf-8")
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}", encoding="utf-8")
        (folder / "ssh_config").write_text(
            f"Host 127.0.0.1\n  Port {port}\n  User {user}\n  IdentityFile {folder}/user\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n",
            encoding="utf-8",
        )
        options = {
            "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "UsePAM": "no",
            "AuthorizedKeysFile": folder / "authorized_keys", "StrictModes": "no",
            "PasswordAuthentication": "no", "PermitRootLogin": "prohibit-password",
            "PidFile": "none", "Subsystem": "sftp internal-sftp",
        }  # fmt: skip
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        server = subprocess.Popen(
            [sshd, "-D", "-f", "/dev/null", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _wait(server, port)
            yield {
                "HOST": "127.0.0.1",
                "SSH_USER": user,
                "ANSIBLE_SSH_COMMON_ARGS": f"-F {folder}/ssh_config",
                # The next run's server has another key: no connection may outlive this one.
                "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{folder}/cp",
            }
        finally:
            for socket_file in folder.glob("cp/*"):
                run("ssh", "-O", "exit", "-o", f"ControlPath={socket_file}", "127.0.0.1")
            server.terminate()
            server.wait(timeout=10)


def _wait(server: "subprocess.Popen[bytes]", port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    said = server.stderr.read().decode() if server.stderr and server.poll() is not None else ""
    message = f"sshd did not come up: {said}"
    raise BenchError(message)
