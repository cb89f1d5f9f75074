"""What a record says about where it was measured: code, packages, machine, GPUs, scheduler."""

import hashlib
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.needs import missing

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "torch", "triton", "deepspeed", "nvidia-dali-cuda120", "nvidia-dali-cuda130", "webdataset", "pillow", "simplejpeg",
    "numpy", "submitit", "safetensors",
)  # fmt: skip


def identity() -> dict:
    """The code and the command. A launcher's snapshot has no git; the launch.json beside it names the commit."""
    commit, dirty, launch = None, None, ROOT.parent / "launch.json"
    if (ROOT / ".git").exists():
        commit = _output("git", "-C", str(ROOT), "rev-parse", "HEAD")
        dirty = bool(_output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"))
    elif launch.is_file():
        commit, plus, _ = json.loads(launch.read_text())["commit"].partition("+")
        dirty = bool(plus)
    return {"commit": commit, "dirty": dirty, "command": shlex.join([Path(sys.executable).name, *sys.argv])}


def system() -> dict:
    """Names of hosts and GPUs are hashed: equal machines can be told apart, but not found."""
    return {
        "host": _hash(socket.gethostname()),
        "os": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": list(os.getloadavg()),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "nccl": list(torch.cuda.nccl.version()) if torch.cuda.is_available() else None,
        "cpu_only": not torch.cuda.is_available(),
        "gpus": _gpus(),
        "interconnect": _output("nvidia-smi", "topo", "-m"),
        "network_megabits": _network(),
        "slurm": {key: os.environ[key] for key in sorted(os.environ) if key in SLURM},
        "container": os.environ.get("SINGULARITY_NAME") or os.environ.get("ENROOT_ROOTFS"),
        "world": int(os.environ.get("WORLD_SIZE", "1")),
    }


SLURM = ("SLURM_JOB_ID", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "SLURM_CPUS_PER_TASK", "SLURM_GPUS_ON_NODE")


def _gpus() -> list[dict]:
    if not torch.cuda.is_available():
        return []
    found = []
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        gpu = {"name": properties.name, "uuid": _hash(str(properties.uuid)), "memory_bytes": properties.total_memory}
        gpu |= {"multiprocessors": properties.multi_processor_count, "l2_bytes": properties.L2_cache_size}
        found.append(gpu | _nvml(str(properties.uuid)))
    return found


def _nvml(uuid: str) -> dict:
    """The driver, clocks, power limit and MIG mode, as far as NVML tells them."""
    if packages := missing(["pynvml"]):
        return {"nvml": f"{packages} is not installed"}
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError as error:
        return {"nvml": str(error)}
    reads = {
        "driver": pynvml.nvmlSystemGetDriverVersion,
        "power_limit_watts": lambda: pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000,
        "sm_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "sm_clock_max_mhz": lambda: pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "memory_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
        "mig": lambda: bool(pynvml.nvmlDeviceGetMigMode(handle)[0]),
    }
    known = {}
    for name, read in reads.items():
        try:
            known[name] = read()
        except pynvml.NVMLError:
            known[name] = None
    return known


def _network() -> dict[str, int]:
    """Each network device's rate, where Linux knows it."""
    rates = {}
    for path in sorted(Path("/sys/class/net").glob("*/speed")):
        try:
            speed = int(path.read_text())
        except (OSError, ValueError):  # a device that is down
            continue
        if speed > 0:
            rates[path.parent.name] = speed
    return rates


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _output(*command: str) -> str | None:
    """What a command prints, None where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
