"""A real SLURM on this one host: munged, slurmctld and a slurmd a node, as processes of ours in a folder under /tmp.

Everything listens on loopback, on ports that were free, and nothing outside the folder is touched. The daemons stay in
the foreground, so that each is a `Popen` and is stopped by its own pid. Works as root and as an ordinary user.
GPUs are fake: character devices that SLURM hands out and nobody opens.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

# KillWait and SlurmdTimeout are short so that a fault is noticed within a test, and MinJobAge is long so that a job
# that ended can still be asked about. cred_expire=5 lets a requeued job start again after 6 s (default 121 s). Nodes
# may claim more CPUs than the host has (config_overrides).
SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
ReturnToService=1
SlurmdTimeout=10
KillWait=5
MinJobAge=3600
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=100000,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{accounting}
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports} CPUs=16 RealMemory=16000 Gres=gpu:8
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=10
PartitionName=fragile Nodes=ALL MaxTime=INFINITE PriorityTier=1 PreemptMode=CANCEL GraceTime=0
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""

# slurmdbd's munge socket is given in AccountingStoragePass; AuthInfo is not read for it.
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStoragePass={root}/munge.socket
AccountingStorageTRES=gres/gpu"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser={user}
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
CommitDelay=1
"""


def missing_packages(accounting: bool = False) -> str:
    """The command that installs what is not there, or an empty string."""
    programs = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm", "munged": "munge"}
    if accounting:
        programs |= {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server"}
    missing = sorted({package for program, package in programs.items() if not shutil.which(program, path=PATH)})
    return f"apt-get install -y --no-install-recommends {' '.join(missing)}" if missing else ""


class Cluster:
    """Nodes n1, n2, ... with 16 CPUs and 8 fake GPUs each; partitions main (default), fragile
    (preempted without grace and not requeued) and urgent (preempts both)."""

    def __init__(self, nodes: int = 4, accounting: bool = False):
        # A socket's path may have 108 characters at most: a short folder, not pytest's.
        self.root = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        outside = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        self.env = outside | {
            "PATH": PATH, "SLURM_CONF": str(self.root / "slurm.conf"), "OMP_NUM_THREADS": "1",
            "MSCGAN_PYTHON": sys.executable,
            "XDG_STATE_HOME": str(self.root / "home"), "XDG_CONFIG_HOME": str(self.root / "home"),
        }  # fmt: skip
        self.daemons: dict[str, subprocess.Popen] = {}
        self.accounting = accounting
        self._write_files(_free_ports(nodes + 3))

    def start(self) -> None:
        files = [f"--{kind}-file={self.root}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
        self._daemon("munged", "munged", "--foreground", "--force", "--num-threads=10",
                     f"--socket={self.root}/munge.socket", *files)  # fmt: skip
        _until((self.root / "munge.socket").exists, "munged did not open its socket")
        if self.accounting:
            self._start_accounting()
        self._daemon("slurmctld", "slurmctld", "-D")
        for node in self.nodes:
            self.start_node(node)
        idle = ("sinfo", "-hN", "--partition=main", "--states=idle")
        _until(lambda: len(self.run(*idle, check=False).splitlines()) == len(self.nodes), "nodes are not idle")

    def stop(self) -> None:
        if "slurmctld" in self.daemons:
            self.run("scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}", check=False)
            self.run("scancel", f"--user={getpass.getuser()}", check=False)
            _until(lambda: not self.run("squeue", "-h", check=False), None, seconds=8)
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in self.processes():
            _kill(pid)
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, *command: str, check: bool = True, cwd: Path | None = None) -> str:
        """Runs a command in the cluster's environment; what it prints to stdout, stripped."""
        done = subprocess.run(command, env=self.env, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0 or not check, f"{' '.join(command)}: exit {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` knows, for example JobState, Restarts, NodeList, ExitCode."""
        shown = self.run("scontrol", "-o", "show", "job", number)
        return dict(field.split("=", 1) for field in shown.split() if "=" in field)

    def start_node(self, node: str) -> None:
        self._daemon(node, "slurmd", "-D", "-N", node)

    def crash_node(self, node: str) -> None:
        """kill -9 of the node's slurmd and of all that runs on it, as a power cut does."""
        self.daemons[node].kill()
        self.daemons[node].wait()
        for pid in self.processes(node):
            _kill(pid)

    def processes(self, node: str | None = None) -> list[int]:
        """Pids of the step daemons and tasks of this cluster, or of one of its nodes, found by their environment."""
        daemons = {daemon.pid for daemon in self.daemons.values()}
        names = [node] if node else self.nodes
        marks = {f"{key}={name}".encode() for key in ("CLUSTER_NODE", "SLURMD_NODENAME") for name in names}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = set((folder / "environ").read_bytes().split(b"\0"))
            except OSError:
                continue  # it ended meanwhile, or is another user's
            if f"SLURM_CONF={self.env['SLURM_CONF']}".encode() in environment and environment & marks:
                found.append(int(folder.name))
        return sorted(set(found) - daemons)

    def log(self, daemon: str) -> str:
        return (self.root / f"{daemon}.log").read_text()

    def _daemon(self, name: str, *command: str) -> None:
        # slurmd hands its environment to its step daemons: CLUSTER_NODE tells whose they are.
        with (self.root / f"{name}.log").open("a") as log:
            self.daemons[name] = subprocess.Popen(
                command or (name,), env=self.env | {"CLUSTER_NODE": name}, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def _start_accounting(self) -> None:
        """slurmdbd on a private MariaDB."""
        user, socket_path = getpass.getuser(), f"{self.root}/sql.socket"
        data = f"--datadir={self.root}/sql"
        self.run("mariadb-install-db", "--no-defaults", data, f"--user={user}", "--skip-test-db",
                 "--auth-root-authentication-method=normal")  # fmt: skip
        self._daemon("mariadbd", "mariadbd", "--no-defaults", f"--user={user}", data, f"--socket={socket_path}",
                     "--bind-address=127.0.0.1", f"--port={self.sql_port}", "--innodb-flush-log-at-trx-commit=0",
                     f"--pid-file={self.root}/sql.pid", "--skip-log-bin")  # fmt: skip
        client = ("mariadb", "--no-defaults", f"--socket={socket_path}", "--user=root", "--execute")
        _until(lambda: subprocess.run([*client, ""], env=self.env, capture_output=True).returncode == 0, "no MariaDB")
        self.run(*client, f"CREATE USER slurm@127.0.0.1 IDENTIFIED BY '{self.password}'; "
                          "GRANT ALL ON slurm_acct_db.* TO slurm@127.0.0.1")  # fmt: skip
        self._daemon("slurmdbd", "slurmdbd", "-D")
        add = ("sacctmgr", "-i", "add", "cluster", "test")
        _until(lambda: subprocess.run(add, env=self.env, capture_output=True).returncode == 0, "no slurmdbd")

    def _write_files(self, ports: list[int]) -> None:
        self.sql_port, self.password = ports[-1], secrets.token_hex(8)
        values = {
            "root": self.root, "host": socket.gethostname().split(".")[0], "user": getpass.getuser(),
            "nodes": len(self.nodes), "node_ports": f"[{ports[0]}-{ports[len(self.nodes) - 1]}]",
            "ctld_port": ports[-3], "dbd_port": ports[-2], "sql_port": self.sql_port, "password": self.password,
        }  # fmt: skip
        accounting = ACCOUNTING.format(**values) if self.accounting else "AccountingStorageType=accounting_storage/none"
        (self.root / "slurm.conf").write_text(SLURM_CONF.format(**values, accounting=accounting))
        gpus = f"NodeName=n[1-{len(self.nodes)}] Name=gpu File={_fake_gpus(self.root)}\n"
        (self.root / "gres.conf").write_text(gpus)
        _private(self.root / "slurmdbd.conf", SLURMDBD_CONF.format(**values))
        _private(self.root / "munge.key", secrets.token_hex(64))
        for folder in ["state", "spool", *(f"spool/{node}" for node in self.nodes)]:
            (self.root / folder).mkdir()


def _fake_gpus(root: Path) -> str:
    """SLURM asks for character devices: root makes copies of /dev/null, others name the consoles."""
    try:
        for i in range(8):
            os.mknod(root / f"gpu{i}", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        return "/dev/tty[0-7]"
    return f"{root}/gpu[0-7]"


def _private(file: Path, text: str) -> None:
    file.touch(0o600)
    file.write_text(text)


def _free_ports(count: int) -> list[int]:
    """Neighbouring ports of the loopback that nobody listens on, below those that launch/ gives its jobs."""
    for base in range(10000 + secrets.randbelow(8000), 20000 - count, count):
        with contextlib.ExitStack() as held:
            try:
                for port in range(base, base + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        return list(range(base, base + count))
    raise AssertionError("no free ports")


def _until(true: Callable[[], bool], complaint: str | None, seconds: float = 20) -> None:
    """Waits for it; raises the complaint after so many seconds (None: goes on)."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            assert complaint is None, complaint
            return
        time.sleep(0.05)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
