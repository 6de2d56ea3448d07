"""Hosts on one machine: each a network, process and mount namespace with its own sshd, home, /tmp and /dev/shm.

And a network for the machine that reaches them, whose ports nothing else on this one has. Needs root, and Debian's
openssh-server, rsync and iproute2. After `Hosts` ends, no namespace and no process is left.
"""

import shlex
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from conftest import HANGS

BRIDGE = "ray-hosts"
NETWORK = "10.87.65"  # .1 is this machine, .2 the laptop, .10 the first host
LAPTOP = f"{BRIDGE}-laptop"
ON_LAPTOP = ("ip", "netns", "exec", LAPTOP)  # before a command

# What a host does first; it is the first process of its namespace, and all others end with it.
BOOT = """
set -e
hostname {name}
mount --make-rprivate /
mount --bind {folder} /home
mount --bind {shared} /mnt
mount --bind {folder}/passwd /etc/passwd
for each in /tmp /run /dev/shm; do mount -t tmpfs tmpfs $each; done
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -f /home/sshd_config
"""
SSHD = """
HostKey /home/host_key
AuthorizedKeysFile /home/authorized_keys
StrictModes no
UsePAM no
PidFile none
MaxSessions 100
MaxStartups 100
"""

# At the end, and of a run that was killed.
REMOVE = f"""
for name in $(ip netns list | grep -o '^{BRIDGE}-[^ ]*'); do ip netns delete "$name"; done
! ip link show {BRIDGE} > /dev/null 2>&1 || ip link delete {BRIDGE}
"""


class Host:
    """A host that runs, at `address`; root logs in with the key that `Hosts` was given."""

    def __init__(self, number: int, folder: Path, shared: Path, public_key: str, profile: str) -> None:
        self.name = f"{BRIDGE}-{number}"
        self.address = f"{NETWORK}.{10 + number}"
        self.home = folder / "ray"
        self.home.mkdir(parents=True)
        (self.home / ".profile").write_text(profile)
        (folder / "authorized_keys").write_text(public_key)
        (folder / "sshd_config").write_text(SSHD)
        accounts = Path("/etc/passwd").read_text().splitlines()
        accounts = ["root:x:0:0:root:/home/ray:/bin/bash" if line.startswith("root:") else line for line in accounts]
        (folder / "passwd").write_text("\n".join(accounts) + "\n")
        sh(f"ssh-keygen -q -t ed25519 -N '' -f {shlex.quote(str(folder / 'host_key'))}")
        add_network(self.name, self.address)
        boot = BOOT.format(name=self.name, folder=shlex.quote(str(folder)), shared=shlex.quote(str(shared)))
        spaces = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (folder / "sshd.log").open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *spaces, "bash", "-c", boot],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End every process of the host at once, as if its power had failed."""
        self.process.kill()
        self.process.wait()


class Hosts:
    """So many hosts, which share the folder `shared` as /mnt, and read `profile` at every login."""

    def __init__(self, count: int, folder: Path, shared: Path, public_key: str, profile: str) -> None:
        self.count, self.folder, self.shared = count, folder, shared
        self.public_key, self.profile = public_key, profile
        self.hosts: list[Host] = []

    def __enter__(self) -> list[Host]:
        sh(REMOVE)
        try:
            sh(f"ip link add {BRIDGE} type bridge\nip addr add {NETWORK}.1/24 dev {BRIDGE}\nip link set {BRIDGE} up")
            add_network(LAPTOP, f"{NETWORK}.2")
            for number in range(self.count):
                folder = self.folder / f"host-{number}"
                folder.mkdir(parents=True)
                self.hosts.append(Host(number, folder, self.shared, self.public_key, self.profile))
            for host in self.hosts:
                wait_for_port(host.address, 22)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self.hosts

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for host in self.hosts:
            host.kill()
        sh(REMOVE)


def add_network(name: str, address: str) -> None:
    """A network namespace whose one card, beside localhost, is on the bridge."""
    card = "rh" + address.rpartition(".")[2]
    sh(
        f"""
        ip netns add {name}
        ip link add {card} type veth peer name eth0 netns {name}
        ip link set {card} master {BRIDGE} up
        ip -n {name} link set lo up
        ip -n {name} addr add {address}/24 dev eth0
        ip -n {name} link set eth0 up
        ip -n {name} route add default via {NETWORK}.1
        """  # without a default route, Ray would take 127.0.0.1 for the host's address
    )


def wait_for_port(address: str, port: int) -> None:
    """Wait until something listens there."""
    deadline = time.monotonic() + HANGS
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def sh(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True)
