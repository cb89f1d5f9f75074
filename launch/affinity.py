"""The CPUs near a GPU, so that a rank, its threads and its memory stay on the GPU's own NUMA node."""

import os
from pathlib import Path


def near_gpu(local_rank: int, sysfs: Path = Path("/sys")) -> set[int]:
    """CPUs that this process may use and that are local to the rank's GPU; empty where the machine does not show them.

    The GPU is the `local_rank`-th that CUDA_VISIBLE_DEVICES leaves visible, in PCI order.
    """
    bus = _bus_id(local_rank)
    try:
        listed = (sysfs / "bus/pci/devices" / bus / "local_cpulist").read_text() if bus else ""
    except OSError:
        return set()
    return _cpus(listed.strip()) & os.sched_getaffinity(0)


def _bus_id(local_rank: int) -> str:
    """PCI address as /sys names it, 0000:41:00.0, or an empty string without such a GPU."""
    import pynvml  # 70 ms that submitting, which imports this file too, need not spend

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(local_rank)] if visible is None else visible.split(",")[local_rank : local_rank + 1]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ""  # no driver: no GPU to be near to
    try:
        if not names or not names[0]:
            return ""
        by_index = names[0].isdigit()
        handle = (
            pynvml.nvmlDeviceGetHandleByIndex(int(names[0])) if by_index else pynvml.nvmlDeviceGetHandleByUUID(names[0])
        )
        bus = pynvml.nvmlDeviceGetPciInfo(handle).busId
    except pynvml.NVMLError:
        return ""  # a name that NVML does not know, such as a MIG slice
    finally:
        pynvml.nvmlShutdown()
    text = bus if isinstance(bus, str) else bus.decode()
    return text.lower()[-12:]  # NVML's PCI domain has 8 digits, that of /sys 4


def _cpus(text: str) -> set[int]:
    """The CPUs of a list such as 0-15,32-47."""
    cpus = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cpus |= set(range(int(first), int(last or first) + 1))
    return cpus
