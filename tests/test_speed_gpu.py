"""State of a GPU: by a fake ``pynvml``, by a fake ``nvidia-smi``, and by neither."""

import json
import os
from types import SimpleNamespace

import pytest
import torch

from prunekit.measure.gpu import gpu_reader, nvml_reader, smi_reader

MIB = 2**20
OWN = os.getpid()


class NVMLError(Exception):
    pass


def refuse(*_):
    raise NVMLError("not supported")


def fake_nvml(**changes):
    functions = {
        "NVMLError": NVMLError,
        "NVML_CLOCK_SM": 1,
        "NVML_CLOCK_MEM": 2,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda identity: f"handle of {identity}",
        "nvmlSystemGetDriverVersion": lambda: b"550.1",
        "nvmlDeviceGetName": lambda handle: "Card 100",
        "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1500, 2: 2600}[kind],
        "nvmlDeviceGetMaxClockInfo": lambda handle, kind: 1980,
        "nvmlDeviceGetTemperature": lambda handle, sensor: 61,
        "nvmlDeviceGetPowerUsage": lambda handle: 312_500,
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=97),
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=512 * MIB),
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: 0x4 | 0x20,
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 12_345,
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: [
            SimpleNamespace(pid=OWN, usedGpuMemory=64 * MIB),
            SimpleNamespace(pid=7, usedGpuMemory=None),
        ],
    }
    return SimpleNamespace(**functions | changes)


STATE = {
    "name": "Card 100",
    "driver": "550.1",
    "sm_clock_mhz": 1500,
    "max_sm_clock_mhz": 1980,
    "memory_clock_mhz": 2600,
    "temperature_c": 61,
    "power_w": 312.5,
    "power_limit_w": 700,
    "utilisation": 97,
    "memory_used_mib": 512,
    "throttle_reasons": ["power cap", "software thermal slowdown"],
    "processes": [
        {"pid": OWN, "memory_mib": 64, "own": True},
        {"pid": 7, "memory_mib": None, "own": False},
    ],
}


def fake_smi(arguments):
    assert arguments[1:] == ["--format=csv,noheader,nounits", "--id=GPU-1"]
    if arguments[0].startswith("--query-gpu=name,driver_version,"):
        return "Card 100, 550.1, 1500, 1980, 2600, 61, 312.50, 700.00, 97, 512, 0x0000000000000024\n"
    assert arguments[0] == "--query-compute-apps=pid,used_memory"
    return f"{OWN}, 64\n7, [N/A]\n"


def test_nvml_tells_clocks_throttling_power_and_processes():
    reader = nvml_reader(fake_nvml(), "GPU-1")
    assert reader.state() == {"source": "pynvml", **STATE}
    assert reader.energy_mj() == 12_345
    assert json.loads(json.dumps(reader.state())) == reader.state()


def test_what_this_gpu_does_not_tell_nvml_is_none():
    silent = fake_nvml(
        nvmlDeviceGetTotalEnergyConsumption=refuse,
        nvmlDeviceGetPowerUsage=refuse,
        nvmlDeviceGetCurrentClocksThrottleReasons=refuse,
        nvmlDeviceGetComputeRunningProcesses=refuse,
        nvmlDeviceGetUtilizationRates=refuse,
    )
    reader = nvml_reader(silent, "GPU-1")
    unknown = {"power_w": None, "throttle_reasons": None, "processes": [], "utilisation": None}
    assert reader.state() == {"source": "pynvml", **STATE, **unknown}
    assert reader.energy_mj() is None


@pytest.mark.parametrize("missing", ["nvmlInit", "nvmlDeviceGetHandleByUUID"])
def test_there_is_no_nvml_reader_where_the_driver_does_not_answer(missing):
    assert nvml_reader(fake_nvml(**{missing: refuse}), "GPU-1") is None
    assert nvml_reader(None, "GPU-1") is None


def test_nvidia_smi_tells_the_same():
    reader = smi_reader(fake_smi, "GPU-1")
    assert reader.state() == {"source": "nvidia-smi", **STATE}
    assert reader.energy_mj() is None


def test_what_nvidia_smi_does_not_know_is_none():
    def partly(arguments):
        if arguments[0].startswith("--query-compute"):
            return ""
        return "Card 1, 550.1, 1500, [N/A], 2600, 61, [Not Supported], N/A, 97, 512, [N/A]\n"

    state = smi_reader(partly, "GPU-1").state()
    keys = ("max_sm_clock_mhz", "power_w", "power_limit_w", "throttle_reasons")
    assert [state[key] for key in keys] == [None] * 4
    assert state["processes"] == []


def test_there_is_no_smi_reader_without_nvidia_smi(monkeypatch):
    assert smi_reader(lambda arguments: None, "GPU-1") is None


def test_a_cpu_has_no_reader():
    assert gpu_reader(torch.device("cpu")) is None


def test_a_cuda_device_is_found_by_its_id_by_pynvml_then_nvidia_smi_then_not_at_all(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1"))
    module = "prunekit.measure.gpu"
    monkeypatch.setattr(f"{module}._pynvml", fake_nvml)
    monkeypatch.setattr(f"{module}._nvidia_smi", fake_smi)
    assert gpu_reader(torch.device("cuda")).state()["source"] == "pynvml"
    monkeypatch.setattr(f"{module}._pynvml", lambda: None)
    assert gpu_reader(torch.device("cuda")).state()["source"] == "nvidia-smi"
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1"))
    monkeypatch.setattr(f"{module}._pynvml", lambda: None)
    monkeypatch.setenv("PATH", "")
    assert gpu_reader(torch.device("cuda")) is None
