"""Nodes of a Ray cluster know each other by a secret that all have, and nobody else."""

from __future__ import annotations

import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from parts import REPO

PROGRAM = REPO / "roles/ray/files/ray_cluster_tls.py"
SECRET, OTHER = "s" * 64, "t" * 64
NAMES = ("ca.pem", "cert.pem", "key.pem")


def make(folder: Path, secret: str) -> dict[str, bytes]:
    """Return the files that a node with a secret makes in a folder, or finds there."""
    given = folder.with_name(f"{folder.name}.secret")
    given.write_text(f"{secret}\n")
    subprocess.run([sys.executable, str(PROGRAM), str(folder), str(given)], check=True)
    return {name: (folder / name).read_bytes() for name in NAMES}


def context(folder: Path, side: ssl._SSLMethod) -> ssl.SSLContext:
    """Return one side's settings, as gRPC has them: the other one's certificate is needed."""
    found = ssl.SSLContext(side)
    found.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    found.load_verify_locations(folder / "ca.pem")
    found.verify_mode = ssl.CERT_REQUIRED
    return found


def meet(client: Path, server: Path, address: str = "127.0.0.1") -> None:
    """Shake hands, both sides in memory.

    Raises:
        ssl.SSLError: one of them does not know the other.
    """
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = context(client, ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
        to_client, to_server, server_hostname=address
    )
    two = context(server, ssl.PROTOCOL_TLS_SERVER).wrap_bio(to_server, to_client, server_side=True)
    waiting = [one, two]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    assert not waiting
    two.write(b"done")  # with TLS 1.3 a client hears here that it was refused
    assert one.read(4) == b"done"


def test_two_nodes_of_one_secret_know_each_other(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    keys = {make(folder, SECRET)["key.pem"] for folder in (first, second)}
    assert len(keys) == 2, "each has a key of its own"
    meet(first, second)
    meet(second, first)


def test_who_has_another_secret_is_refused_by_both_sides(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    make(ours, SECRET)
    make(theirs, OTHER)
    for client, server in ((ours, theirs), (theirs, ours)):
        with pytest.raises(ssl.SSLError):
            meet(client, server)


def test_a_node_is_known_by_its_addresses_alone(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    make(folder, SECRET)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"192\.0\.2\.1"):
        meet(folder, folder, "192.0.2.1")


def test_what_is_good_stays_and_nobody_else_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    made = make(folder, SECRET)
    assert make(folder, SECRET) == made
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in NAMES} == {0o600}
    assert not [name for name in NAMES if SECRET.encode() in made[name]]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_cut_off_is_made_again(name: str, tmp_path: Path) -> None:
    folder, other = tmp_path / "node", tmp_path / "other"
    made = make(folder, SECRET)
    make(other, SECRET)
    (folder / name).write_bytes(made[name][:40])
    make(folder, SECRET)
    meet(folder, other)
    meet(other, folder)


def test_another_secret_makes_all_of_it_again(tmp_path: Path) -> None:
    folder, other = tmp_path / "node", tmp_path / "other"
    make(folder, SECRET)
    make(folder, OTHER)
    make(other, OTHER)
    meet(folder, other)
    meet(other, folder)
