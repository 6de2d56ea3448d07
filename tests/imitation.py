"""Amazon's services and Azure's store, as moto and Azurite imitate them on this machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import HANGS, WITHOUT_NETWORK, run


@dataclass(frozen=True)
class Store:
    """An empty object store, how to get at it, and what it says to somebody whom it does not know."""

    base: str  # the URI of a bucket that may be made
    environment: dict[str, str]
    wrong_credentials: dict[str, str]
    refusal: str
    inside: tuple[str, ...] = ()  # before a command: where the store is in reach


@contextmanager
def amazon(folder: Path, **settings: str) -> Iterator[str]:
    """The address of an empty account. Its log is written into `folder`; `settings` are moto's variables."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env=os.environ | settings,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for_text("Running on", folder / "log", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=HANGS)


def wait_for_text(text: str, log: Path, server: "subprocess.Popen[bytes]") -> None:
    """Wait until a server says in its log that it is ready."""
    deadline = time.monotonic() + HANGS
    while text not in log.read_text():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def credentials(address: str) -> dict[str, str]:
    """What makes every library of Amazon's go there."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@contextmanager
def s3_store(folder: Path) -> Iterator[Store]:
    folder.mkdir()
    with amazon(folder) as address:
        nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        yield Store("s3://bucket", credentials(address), nobody, "Unable to locate credentials")


ACCOUNT = "devstoreaccount1"
# Azurite's own, which everybody knows.
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
# An account's name is a host's: only by a name of Azure's, and with TLS, is an address used as it is there.
AZURITE = f"""
set -e
ip link set lo up
for service in blob dfs; do echo "127.0.0.1 {ACCOUNT}.$service.core.windows.net"; done | cat /etc/hosts - > hosts
mount --bind hosts /etc/hosts
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out certificate.pem -subj /CN=azurite \
  -addext "subjectAltName=DNS:{ACCOUNT}.blob.core.windows.net,DNS:{ACCOUNT}.dfs.core.windows.net" 2> /dev/null
exec node_modules/.bin/azurite-blob --location files --blobHost 127.0.0.1 --blobPort 443 --cert certificate.pem \
  --key key.pem --skipApiVersionCheck --disableTelemetry
"""


@contextmanager
def azure_store(folder: Path) -> Iterator[Store]:
    """Azurite, in a network and with an /etc/hosts of its own."""
    assert shutil.which("npm"), "install npm, which brings Azurite"
    folder.mkdir()
    installed = run("npm", "install", "--no-audit", "--no-fund", "azurite@3", folder=folder)
    assert installed.returncode == 0, installed.stdout
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*WITHOUT_NETWORK, "--mount", "bash", "-c", AZURITE], cwd=folder, stdout=log, stderr=log
        )
    inside = ("nsenter", "--preserve-credentials", "--user", "--mount", "--net", "--target", str(server.pid))
    try:
        wait_for_text("successfully listens", folder / "log", server)
        environment = {"AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY, "SSL_CERT_FILE": str(folder / "certificate.pem")}
        wrong = {"AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY.replace("Eby", "Bye")}
        refusal = "Operation returned an invalid status 'Server failed to authenticate the request"
        yield Store(f"abfs://bucket@{ACCOUNT}.dfs.core.windows.net", environment, wrong, refusal, inside)
    finally:
        server.terminate()
        server.wait(timeout=HANGS)
