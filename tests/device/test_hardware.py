import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dpstune.device.hardware import (
    PACKAGES,
    available_precisions,
    bound_kernel_caches,
    choose_precision,
    describe_environment,
    gpu_identity,
    is_out_of_memory,
    keep_freed_memory,
    new_accelerator,
    peak_memory_bytes,
    reset_peak_memory,
    slow_precision,
    wait_for,
)
from dpstune.errors import RequestError

CPU = torch.device("cpu")
STATUS = Path("/proc/self/status")
needs_status = pytest.mark.skipif(
    not (STATUS.exists() and "VmHWM:" in STATUS.read_text()), reason="the system does not tell what a process holds"
)


@pytest.fixture(params=[True, False], ids=["native bf16", "no native bf16"])
def native_bf16(request, monkeypatch):
    """A processor with, and one without, instructions for bf16."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return request.param


def test_a_cpu_computes_natively_in_fp32_and_where_it_can_in_bf16(native_bf16):
    assert available_precisions("cpu") == (("bf16", "fp32") if native_bf16 else ("fp32",))
    assert choose_precision("auto", "cpu") == ("bf16" if native_bf16 else "fp32")


@pytest.mark.usefixtures("native_bf16")
@pytest.mark.parametrize("asked", ["fp16", "bf16", "fp32"])
def test_a_cpu_computes_in_every_precision_that_is_asked_for(asked):
    assert choose_precision(asked, "cpu") == asked
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(asked, torch.bfloat16)
    with torch.autocast("cpu", half, enabled=asked != "fp32"):
        assert torch.ones(2, 2).mm(torch.ones(2, 2)).dtype == (torch.float32 if asked == "fp32" else half)


def test_what_a_cpu_emulates_is_slow(native_bf16):
    assert slow_precision("fp32", "cpu") is None
    assert (slow_precision("bf16", "cpu") is None) == native_bf16
    assert slow_precision("fp16", "cpu").startswith("fp16 is slow on this CPU; training.precision=auto takes ")


@pytest.mark.parametrize(("supported", "available"), [(True, ("bf16", "fp16", "fp32")), (False, ("fp16", "fp32"))])
def test_a_gpu_has_bf16_only_natively_and_then_prefers_it(monkeypatch, supported, available):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported or including_emulation
    )
    assert available_precisions("cuda") == available
    assert choose_precision("auto", "cuda") == available[0]
    assert choose_precision("fp16", "cuda") == "fp16"
    if not supported:
        with pytest.raises(RequestError, match="dpstune does not support bf16 on device 'cuda'; choose fp16 or fp32"):
            choose_precision("bf16", "cuda")


def test_another_device_computes_in_fp32_unless_told():
    assert choose_precision("auto", "mps") == "fp32"
    assert choose_precision("fp16", "mps") == "fp16", "the recipes of Table 2 ask for it"
    with pytest.raises(RequestError, match="dpstune does not support bf16 on device 'mps'; choose fp16 or fp32"):
        choose_precision("bf16", "mps")


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: out of memory"), RuntimeError("no driver")])
def test_a_gpu_too_full_to_say_which_it_is_is_known_by_its_name(monkeypatch, error):
    def properties(device):
        raise error

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    if is_out_of_memory(error):
        assert gpu_identity("3") == "3"
    else:
        with pytest.raises(RuntimeError, match="no driver"):
            gpu_identity("3")


def test_where_a_launcher_says_cpu_beside_a_gpu_losses_are_scaled_on_the_cpu(monkeypatch):
    monkeypatch.setattr("dpstune.device.hardware._cpu_alone", lambda: False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    accelerator = new_accelerator("fp16")
    assert accelerator.device.type == "cpu"
    assert accelerator.native_amp
    assert accelerator.scaler.is_enabled()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError("out of memory"), False),
    ],
)
def test_a_gpu_without_memory_is_told_by_more_than_one_error(error, expected):
    assert is_out_of_memory(error) == expected


@needs_status
def test_peak_memory_is_at_least_what_the_process_holds():
    held = np.ones(2**23)  # 64 MiB
    holds = int(STATUS.read_text().partition("VmRSS:")[2].split()[0]) * 1024
    assert held.nbytes < holds <= peak_memory_bytes(CPU) * 1.01 < 100 * holds


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone resets a process's peak")
def test_the_peak_can_be_reset():
    np.ones(30_000_000)
    before = peak_memory_bytes(CPU)
    reset_peak_memory(CPU)
    assert peak_memory_bytes(CPU) < before - 100_000_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told")
@pytest.mark.slow
def test_freed_memory_is_used_again_and_is_not_counted_in_the_next_peak():
    """In a process of its own: the allocator's settings stay."""
    code = """
import resource
import torch
from dpstune.device.hardware import keep_freed_memory, peak_memory_bytes, reset_peak_memory

keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):  # alignment may keep a few of the first blocks from fitting one another
    torch.ones(50_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
held = peak_memory_bytes(torch.device("cpu"))
reset_peak_memory(torch.device("cpu"))
print(held - peak_memory_bytes(torch.device("cpu")))
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    faults, given_back = map(int, child.stdout.split())
    assert faults < 8 * 49_000, "200 MB are 49,000 pages, and they were asked for twenty times"
    assert given_back > 180_000_000


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("dpstune.device.hardware._libc_is_glibc", lambda: False)
    monkeypatch.setattr("dpstune.device.hardware.ctypes", None)
    keep_freed_memory()
    reset_peak_memory(CPU)


@pytest.mark.parametrize(("tiles", "kept"), [(False, "64"), (True, "1024")])
def test_what_the_environment_says_of_kernel_caches_stands(monkeypatch, tiles, kept):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    bound_kernel_caches()
    assert (os.environ["LRU_CACHE_CAPACITY"], os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) == ("7", kept)


@pytest.mark.slow
@needs_status
@pytest.mark.skipif(available_precisions("cpu")[0] != "bf16", reason="it is bf16 kernels that are large")
def test_many_shapes_do_not_fill_the_memory():
    code = """
import torch
from dpstune.device.hardware import bound_kernel_caches, peak_memory_bytes

torch.cpu._is_amx_tile_supported = lambda: False
bound_kernel_caches()
weight = torch.ones(1536, 384, dtype=torch.bfloat16)
peaks = []
for rows in range(1, 401):
    torch.ones(rows, 384, dtype=torch.bfloat16) @ weight.t()
    peaks.append(peak_memory_bytes(torch.device("cpu")))
print(peaks[-1] - peaks[100])
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("CACHE_CAPACITY")}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert int(child.stdout) < 100_000_000, "the caches' own capacity would hold 300 kernels more"


@needs_status
def test_peak_memory_is_the_processs_own_not_that_of_the_one_that_started_it():
    code = (
        "from types import SimpleNamespace; from dpstune.device.hardware import peak_memory_bytes; "
        "print(peak_memory_bytes(SimpleNamespace(type='cpu')))"
    )
    held = np.ones(2**25)  # 256 MiB
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**20 < int(child.stdout) < held.nbytes


def test_the_environment_tells_machine_and_software():
    assert describe_environment(torch.device("mps"), "fp32", 1)["device"] == "mps"
    environment = describe_environment(CPU, "bf16", 2)
    assert (environment["device"], environment["precision"], environment["processes"]) == ("cpu", "bf16", 2)
    assert environment["python"] == platform.python_version()
    assert set(environment["packages"]) == set(PACKAGES)
    assert environment["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert environment["threads"] == torch.get_num_threads()


def test_any_gpu_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    for name in ("cpu", "mps", "cuda:1"):
        wait_for(torch.device(name))
    assert waited == [torch.device("mps"), torch.device("cuda:1")]


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr("dpstune.device.hardware.PACKAGES", ("torch", "no-such-package"))
    assert describe_environment(CPU, "fp32", 1)["packages"]["no-such-package"] is None


@pytest.mark.parametrize("plugin", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_a_launcher_that_cuts_gradients_into_pieces_is_refused(monkeypatch, plugin):
    monkeypatch.setenv(f"ACCELERATE_USE_{plugin}", "true")
    with pytest.raises(RequestError, match=f"the launcher asks for {plugin}, which cuts gradients"):
        new_accelerator("fp32")
