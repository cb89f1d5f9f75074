from types import SimpleNamespace

import pynvml
import pytest

from launch import gpu_health
from mscgan.errors import UserError


class FakeNVML:
    """NVML with as many healthy GPUs as there are handles; a test changes one answer."""

    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    NVML_VOLATILE_ECC = pynvml.NVML_VOLATILE_ECC

    def __init__(self, count=2, ecc=0, rows=(0, 0, 0, 0), reasons=0, used=500 << 20):
        self.count, self.ecc, self.rows, self.reasons, self.used = count, ecc, rows, reasons, used

    def nvmlInit(self):
        pass

    def nvmlShutdown(self):
        pass

    def nvmlDeviceGetCount(self):
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return int(uuid[-1])

    def nvmlDeviceGetTotalEccErrors(self, handle, kind, counter):
        return self.ecc if handle == 1 else 0

    def nvmlDeviceGetRemappedRows(self, handle):
        return self.rows if handle == 1 else (0, 0, 0, 0)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return self.reasons if handle == 1 else 0

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(used=self.used if handle == 1 else 0)


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(gpu_health, "RELEASE_SECONDS", 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_healthy_gpus_have_no_fault():
    assert gpu_health.faults(2, FakeNVML()) == []


@pytest.mark.parametrize(
    "answers, expected",
    [
        ({"ecc": 3}, "GPU 1: 3 uncorrected ECC errors since its last reset"),
        ({"rows": (0, 1, True, False)}, "GPU 1: memory rows wait for a reset to be remapped"),
        ({"rows": (0, 1, False, True)}, "GPU 1: memory rows could not be remapped"),
        ({"reasons": pynvml.nvmlClocksEventReasonHwThermalSlowdown}, "GPU 1: too hot, slowed down by the hardware"),
        ({"used": 40_000_000_000}, "GPU 1: 40.0 GB are in use by something else"),
        ({"count": 1}, "1 GPUs are visible, 2 were asked for"),
    ],
)
def test_a_fault_names_the_gpu_and_the_reason(answers, expected):
    assert gpu_health.faults(2, FakeNVML(**answers)) == [expected]


def test_an_idle_gpu_below_its_power_cap_is_healthy():
    reasons = pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonSwPowerCap
    assert gpu_health.faults(2, FakeNVML(reasons=reasons)) == []


def test_only_the_gpus_that_the_job_was_given_count(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-uuid-2")
    assert gpu_health.faults(2, FakeNVML(count=4, ecc=3)) == []


def test_a_card_without_ecc_is_healthy(monkeypatch):
    def not_supported(*_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(FakeNVML, "nvmlDeviceGetTotalEccErrors", not_supported)
    assert gpu_health.faults(2, FakeNVML()) == []


def test_a_gpu_that_is_lost_is_a_fault_of_the_node(monkeypatch):
    def lost(*_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(FakeNVML, "nvmlDeviceGetHandleByIndex", lost)
    assert "lost" in gpu_health.faults(2, FakeNVML())[0].lower()


def test_a_node_without_a_driver_is_reported_as_such(monkeypatch):
    def absent(*_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(FakeNVML, "nvmlInit", absent)
    with pytest.raises(UserError, match="2 GPUs a node were asked for"):
        gpu_health.faults(2, FakeNVML())
