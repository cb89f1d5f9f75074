"""Energy of this process's GPU by NVML's counter, with the integral of sampled power beside it.

The counter moves every 20-100 ms, so windows should last 10 s. Where pynvml or the counter is missing or fails, the
result is None and a warning says why.
"""

import sys
import threading
import time

import torch

from benchmarks.needs import missing


class Energy:
    """with Energy(device) as energy: ...; result() -> {"joules", "sampled_joules", "seconds", "watts"} or None."""

    def __init__(self, device: torch.device):
        self._handle, self._before, self._result = None, 0, None
        if device.type != "cuda":
            return
        if packages := missing(["pynvml"]):
            print(f"warning: {packages} is not installed; J/pair stays empty", file=sys.stderr)
            return
        import pynvml

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(device).uuid
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except pynvml.NVMLError as error:
            print(f"warning: no energy counter ({error}); J/pair stays empty", file=sys.stderr)
            self._handle = None

    def __enter__(self):
        if self._handle is not None:
            self._powers, self._over = [], threading.Event()
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
            self._before = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        self._began = time.perf_counter()
        return self

    def __exit__(self, *error):
        seconds = time.perf_counter() - self._began
        if self._handle is None:
            return
        self._over.set()
        self._sampler.join()
        try:
            joules = (self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) - self._before) / 1000
        except self._nvml.NVMLError as failure:
            print(f"warning: the energy counter failed ({failure}); J/pair stays empty", file=sys.stderr)
            return
        sampled = sum(self._powers) / len(self._powers) * seconds if self._powers else None
        self._result = {
            "joules": joules,
            "sampled_joules": sampled,
            "seconds": seconds,
            "watts": joules / seconds,
        }

    def result(self) -> dict | None:
        return self._result

    def _sample(self) -> None:
        while not self._over.wait(0.05):
            try:
                self._powers.append(self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000)
            except self._nvml.NVMLError:
                return
