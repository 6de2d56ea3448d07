"""A real cluster of three hosts, reached by SSH: the commands of its README, word for word, and a host that dies."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import HANGS, PYTHON, bake, package_sources, run
from hosts import ON_LAPTOP, Host, Hosts

T = TypeVar("T")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: hosts made of namespaces need root")
ROWS = 2000
SLOWLY = '''

class Predictor(Predictor):  # type: ignore[no-redef]
    """The same, at a pace at which a host can die half-way."""

    def __call__(self, batch):  # type: ignore[no-untyped-def]
        import time

        time.sleep(0.05 * len(next(iter(batch.values()))))
        return super().__call__(batch)
'''


class Laptop:
    """The machine that the README's commands are typed on: the project, its environment, its own home and ports.

    Port 8265 above all: `ray dashboard` forwards it to the cluster, and any other Ray here may have it.
    """

    def __init__(self, project: Path, home: Path, temporary: Path) -> None:
        self.project, self.home = project, home
        self.environment = {
            "HOME": str(home),
            "PATH": f"{project}/.nox/demo/bin:{os.environ['PATH']}",
            "RAY_TMPDIR": str(temporary),
        }
        guide = (project / "cluster" / "README.md").read_text()
        self.commands = re.findall(r"^    (\S.*)$", guide, re.MULTILINE)

    def command(self, beginning: str) -> str:
        (found,) = (each for each in self.commands if each.startswith(beginning))
        return found

    def run(self, beginning: str) -> "subprocess.CompletedProcess[str]":
        """Type the README's command that begins so."""
        return self.type(self.command(beginning))

    def type(self, command: str) -> "subprocess.CompletedProcess[str]":
        result = run(*ON_LAPTOP, "bash", "-c", command, folder=self.project, **self.environment)
        print(result.stdout)
        return result

    def start(self, beginning: str, log: Path) -> "subprocess.Popen[bytes]":
        with log.open("wb") as file:
            return subprocess.Popen(
                [*ON_LAPTOP, "bash", "-c", "exec " + self.command(beginning)],
                cwd=self.project,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    missing = [tool for tool in ("/usr/sbin/sshd", "rsync", "ip", "unshare") if not shutil.which(tool)]
    assert not missing, f"install openssh-server, rsync, iproute2 and util-linux: {missing}"
    folder = tmp_path_factory.mktemp("laptop")
    project = bake(folder, cluster="onprem", python_version=PYTHON)
    installed = run(sys.executable, "-m", "nox", "--session", "demo", "--install-only", folder=project)
    assert installed.returncode == 0, installed.stdout
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / ".ssh/id_ed25519"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_AUTH_TOKEN_PATH")  # its token lies where Ray looks for it, in its home
        # Ray's sockets lie there, and the path of one must be shorter than pytest's folders leave it.
        with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
            yield Laptop(project, home, Path(temporary))


@pytest.fixture(scope="module")
def hosts(laptop: Laptop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """A head and two workers, whose addresses are put into onprem.yaml, and nothing else is changed there."""
    shared = laptop.home.parent / "mnt"
    wheels = shared / "wheels"
    wheels.mkdir(parents=True)
    assert (
        run(sys.executable, "-m", "pip", "download", "--quiet", "--dest", wheels, "uv", folder=wheels).returncode == 0
    )
    sources = package_sources(laptop.project)
    cache = run("uv", "cache", "dir", folder=laptop.project, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    # The hosts have no network but their own. What the laptop installed lies in uv's cache.
    sources |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/mnt/wheels", "UV_OFFLINE": "1", "UV_LINK_MODE": "copy"}
    sources |= {"UV_CACHE_DIR": cache.stdout.strip(), "PATH": f"{Path(sys.base_prefix) / 'bin'}:{os.environ['PATH']}"}
    profile = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sources.items())
    key = (laptop.home / ".ssh/id_ed25519.pub").read_text()
    with Hosts(3, tmp_path_factory.mktemp("hosts"), shared, key, profile) as running:
        config = laptop.project / "cluster/onprem.yaml"
        text = config.read_text().replace("ssh_user: ubuntu", "ssh_user: root")
        text = text.replace("~/.ssh", str(laptop.home / ".ssh"))  # ssh's own ~ is the account's, whatever HOME says
        for documented, host in zip(("192.0.2.10", "192.0.2.11", "192.0.2.12"), running, strict=True):
            text = text.replace(documented, host.address)
        config.write_text(text)
        before = set(Path("/tmp").glob("ray[-_]*"))
        yield running
    for left in set(Path("/tmp").glob("ray[-_]*")) - before:  # `ray up`'s sockets for SSH, and what it has read
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def test_a_cluster_from_up_to_down_with_a_host_that_dies(laptop: Laptop, hosts: list[Host], tmp_path: Path) -> None:
    assert laptop.run("ray get-auth-token").returncode == 0
    write_input(laptop)
    assert laptop.run("ray up").returncode == 0
    dashboard = laptop.start("ray dashboard", tmp_path / "dashboard.log")
    try:
        wait_for(lambda: laptop.type("ss -Hltn sport = :8265").stdout)
        wait_for(lambda: doctor_sees(laptop, hosts))
        doctor_finds_what_is_wrong(laptop, hosts)

        job = laptop.start("my-ray-project submit -- predict", tmp_path / "predict.log")
        output = laptop.home.parent / "mnt/shared/predictions"
        wait_for(lambda: rows(output) >= ROWS * 0.4)
        hosts[2].kill()
        before = rows(output)
        assert job.wait(HANGS) == 0, (tmp_path / "predict.log").read_text()
        log = (tmp_path / "predict.log").read_text()
        print(log)
        summary = json.loads((output / "summary.json").read_text())
        print(json.dumps(summary, indent=1))
        assert before < ROWS
        ids = pq.read_table(output / "predictions", columns=["id"])["id"].to_pylist()
        assert len(ids) == len(set(ids)) == ROWS
        assert summary["rows"] == ROWS
        assert summary["failed"] == 0

        again = laptop.run("my-ray-project submit -- predict")  # the job's own words and exit code come back
        assert again.returncode == 0
        assert "finished" in again.stdout
        wrong = laptop.command("my-ray-project submit -- predict").replace("model.safetensors", "no-such-model")
        refused = laptop.type(wrong)
        assert refused.returncode == 2, refused.stdout
    finally:
        dashboard.terminate()
        dashboard.wait()
        down = laptop.run("ray down")
    assert down.returncode == 0
    # The worker's own processes end when they miss the head.
    assert wait_for(lambda: not re.search("raylet|gcs_server", processes(hosts[0]) + processes(hosts[1])))


def write_input(laptop: Laptop) -> None:
    """The example's images, some of them twice, and a model, where README.md has them; and a slow predictor."""
    for step in ("data", "preprocess --engine pandas", "train --num-workers 0"):
        made = laptop.type(f"my-ray-project {step}")
        assert made.returncode == 0, made.stdout
    shared = laptop.home.parent / "mnt/shared"
    (shared / "input").mkdir(parents=True)
    images = sorted((laptop.project / "data/raw/images").glob("*.png"))
    for number in range(ROWS):
        shutil.copy(images[number % len(images)], shared / f"input/{number:04}.png")
    shutil.copy(laptop.project / "outputs/training/model.safetensors", shared)
    with (laptop.project / "src/my_ray_project/predictor.py").open("a") as file:
        file.write(SLOWLY)


def doctor_sees(laptop: Laptop, hosts: list[Host]) -> bool:
    """Whether `doctor` sees all of the hosts, and that they are well."""
    result = laptop.run("my-ray-project submit -- doctor")
    return result.returncode == 0 and all(f"machine {host.address} path" in result.stdout for host in hosts)


def doctor_finds_what_is_wrong(laptop: Laptop, hosts: list[Host]) -> None:
    """A folder of the same name on each host, a GPU that nobody has, and two hosts that do not reach each other."""
    blocked = ["blackhole", f"{hosts[2].address}/32"]
    assert run("ip", "-n", hosts[1].name, "route", "add", *blocked, folder=Path("/")).returncode == 0
    try:
        wrong = "my-ray-project submit -- doctor --output /home/ray/predictions --num-gpus 1"
        ill = laptop.type(wrong)
    finally:
        assert run("ip", "-n", hosts[1].name, "route", "del", *blocked, folder=Path("/")).returncode == 0
    assert ill.returncode == 2
    found = [line for line in ill.stdout.splitlines() if line.startswith("FAIL")]
    assert {line.partition(":")[0] for line in found} == {
        "FAIL plan",
        *(f"FAIL machine {host.address} {what}" for host in hosts[1:] for what in ("ports", "path")),
    }
    assert re.search(rf"ports: {hosts[2].address}:\d+, {hosts[2].address}:\d+ can't be reached. Open them", ill.stdout)
    assert "is another folder there. Put it on storage that every machine reaches" in ill.stdout


def rows(output: Path) -> int:
    """How many are in whole files; one may be half-written."""
    count = 0
    for path in (output / "predictions").glob("*.parquet"):
        with suppress(pa.ArrowInvalid):
            count += pq.read_metadata(path).num_rows
    return count


def processes(host: Host) -> str:
    """The command lines of the processes in the host's network namespace."""
    listed = run("ip", "netns", "pids", host.name, folder=Path("/")).stdout.split()
    lines = (Path(f"/proc/{pid}/cmdline") for pid in listed)
    return "\n".join(line.read_text() for line in lines if line.exists())


def wait_for(condition: Callable[[], T]) -> T:
    deadline = time.monotonic() + HANGS
    while not (met := condition()):
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.5)
    return met
