"""Amazon's services and the stores of Azure and Google, as others' programs imitate them on this machine."""

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
    """An empty object store, how to get at it, and how not, with what is said then."""

    base: str  # the URI of a bucket that may be made
    environment: dict[str, str]
    refused: dict[str, str]  # an environment with which nobody gets in
    refusal: str
    inside: tuple[str, ...] = ()  # before a command: where the store is in reach


@contextmanager
def serving(ready: str, *command: str | Path, folder: Path, **environment: str) -> Iterator[int]:
    """A server's process id, from when it says that it is `ready` on. It runs in `folder`, and has its log there."""
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*map(str, command)], cwd=folder, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + HANGS
        while ready not in (said := (folder / "log").read_text()):
            assert server.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        yield server.pid
    finally:
        server.terminate()
        server.wait(timeout=HANGS)


def inside(server: int) -> tuple[str, ...]:
    """What takes a command into the network, and the view of files, of a server."""
    return ("nsenter", "--preserve-credentials", "--user", "--mount", "--net", "--target", str(server))


@contextmanager
def amazon(folder: Path, **settings: str) -> Iterator[str]:
    """The address of an empty account. Its log is written into `folder`; `settings` are moto's variables."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    with serving("Running on", *command, folder=folder, **settings):
        yield f"http://127.0.0.1:{port}"


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
    command = (*WITHOUT_NETWORK, "--mount", "bash", "-c", AZURITE)
    with serving("successfully listens", *command, folder=folder) as server:
        environment = {"AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY, "SSL_CERT_FILE": str(folder / "certificate.pem")}
        wrong = {"AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY.replace("Eby", "Bye")}
        refusal = "Operation returned an invalid status 'Server failed to authenticate the request"
        yield Store(f"abfs://bucket@{ACCOUNT}.dfs.core.windows.net", environment, wrong, refusal, inside(server))


# What it does not know, moving a file, gcsfs would ask for again and again: half a minute each time.
GOOGLE = """
import sys
from gcp_storage_emulator import __main__, server
def refuse(request, response, storage):
    response.status = 400
server.HANDLERS = ((".*/moveTo/.*", {"POST": refuse}), *server.HANDLERS)
__main__.main(sys.argv[1:])
"""


@contextmanager
def google_store(folder: Path) -> Iterator[Store]:
    """It lets everybody in, and has a network of its own."""
    folder.mkdir()
    start = 'ip link set lo up; exec "$0" -c "$1" start --host=127.0.0.1 --port=9023 --in-memory'
    command = (*WITHOUT_NETWORK, "bash", "-c", start, sys.executable, GOOGLE)
    with serving("All services started", *command, folder=folder) as server:
        environment = {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:9023", "NO_GCE_CHECK": "true"}
        nowhere = {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:9024"}
        yield Store("gs://bucket", environment, nowhere, "Connect call failed", inside(server))
