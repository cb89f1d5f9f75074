"""What NVML says about the GPUs that a job was given: are they there, and are they fit to train on?"""

import os
import time

import pynvml

from mscgan.errors import UserError

HELD_BYTES = 2 << 30  # the driver's own share is below this
RELEASE_SECONDS = 15.0  # the memory of a process that was killed comes back late
UNASKABLE = (
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_InvalidArgument,
    pynvml.NVMLError_NoPermission,
    pynvml.NVMLError_FunctionNotFound,
)
SLOW = {
    pynvml.nvmlClocksEventReasonHwSlowdown: "slowed down by the hardware",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "too hot, slowed down by the hardware",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "too hot, slowed down by the driver",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "slowed down by the power supply",
}


def faults(count: int, nvml=pynvml) -> list[str]:
    """One sentence for each thing that is wrong with the first `count` GPUs of this job on this node.

    Raises:
        UserError: this node has no NVIDIA driver.
    """
    try:
        nvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise UserError(f"{count} GPUs a node were asked for, but NVML does not start here ({error})") from error
    try:
        names = _given(nvml.nvmlDeviceGetCount())
        if len(names) < count:
            return [f"{len(names)} GPUs are visible, {count} were asked for"]
        return [f"GPU {name}: {fault}" for name in names[:count] for fault in _of_one(nvml, name)]
    except pynvml.NVMLError as error:
        return [f"NVML: {error}"]  # for example "GPU is lost"
    finally:
        nvml.nvmlShutdown()


def _given(count: int) -> list[str]:
    """The job's GPUs, as CUDA_VISIBLE_DEVICES names them: numbers or UUIDs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(i) for i in range(count)] if visible is None else [name for name in visible.split(",") if name]


def _of_one(nvml, name: str) -> list[str]:
    handle = nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
    found = []
    kind = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
    errors = _ask(nvml.nvmlDeviceGetTotalEccErrors, handle, *kind)
    if errors:
        found.append(f"{errors} uncorrected ECC errors since its last reset")
    _, _, pending, failed = _ask(nvml.nvmlDeviceGetRemappedRows, handle) or (0, 0, 0, 0)
    if failed:
        found.append("memory rows could not be remapped")
    elif pending:
        found.append("memory rows wait for a reset to be remapped")
    reasons = _ask(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0
    found += [text for bit, text in SLOW.items() if reasons & bit]
    held = _held_bytes(nvml, handle)
    if held > HELD_BYTES:
        found.append(f"{held / 1e9:.1f} GB are in use by something else")
    return found


def _held_bytes(nvml, handle) -> int:
    end = time.monotonic() + RELEASE_SECONDS
    while (held := nvml.nvmlDeviceGetMemoryInfo(handle).used) > HELD_BYTES and time.monotonic() < end:
        time.sleep(0.5)
    return held


def _ask(question, *arguments):
    """The answer; None where this question cannot be asked: a card without ECC, a slice of a GPU, an older driver."""
    try:
        return question(*arguments)
    except UNASKABLE:
        return None
