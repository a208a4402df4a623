"""Create the key and the certificate with which Ray's processes authenticate (ADR 0029).

    ray_tls.py DIR

Writes DIR/key.pem (mode 0600) and DIR/cert.pem, which is its own authority: who has the key belongs
to the cluster. What is there stays while it names every address of this machine and is valid for
another year. Runs in Ray's container before the head starts; needs `cryptography`, which Ray has.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import ipaddress
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID = dt.timedelta(days=3650)
RENEWED = dt.timedelta(days=365)
#: ioctl number of Linux that gives an interface's IPv4 address.
SIOCGIFADDR = 0x8915


def addresses() -> set[str]:
    """Return this machine's addresses: Ray connects to whichever it takes for the node's own."""
    found = {"127.0.0.1", "::1"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
            except OSError:  # it has none
                continue
            found.add(socket.inet_ntoa(answer[20:24]))
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        lines = []
    return found | {str(ipaddress.IPv6Address(int(line.split()[0], 16))) for line in lines}


def good(cert: Path, key: Path, wanted: set[str]) -> bool:
    """Return whether the existing key and certificate can be used."""
    try:
        found = x509.load_pem_x509_certificate(cert.read_bytes())
        serialization.load_pem_private_key(key.read_bytes(), None)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    held = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    left = found.not_valid_after_utc - dt.datetime.now(dt.UTC)
    return wanted <= held and left > RENEWED


def key_of(path: Path) -> Any:
    """Return the existing key, so that copies of it stay valid; or a new one."""
    try:
        return serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError):
        return ec.generate_private_key(ec.SECP256R1())


def make(key: Any, wanted: set[str]) -> tuple[bytes, bytes]:
    """Return a certificate that names the addresses, and its key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "celray-ray")])
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in sorted(wanted)]
    now = dt.datetime.now(dt.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A day in the past, because clocks of several machines differ.
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return cert.public_bytes(pem), key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write(path: Path, content: bytes) -> None:
    """Write a file atomically, readable by its owner only."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    new.replace(path)


def main(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    cert, key = folder / "cert.pem", folder / "key.pem"
    wanted = addresses()
    if not good(cert, key, wanted):
        made = make(key_of(key), wanted)
        cert.unlink(missing_ok=True)  # never beside another's key
        write(key, made[1])
        write(cert, made[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
