"""What the machine can do: devices, precisions, memory, and how to describe it."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.common.garbage import no_garbage_search
from dpstune.device.determinism import ask_for_the_same_bits, fix_workspaces
from dpstune.errors import NO_MEMORY, RequestError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

PACKAGES = ("dpstune", "torch", "transformers", "accelerate", "datasets", "evaluate", "numpy", "tokenizers")


def choose_precision(asked: str, device_type: str) -> str:
    """Return the precision a run computes in: ``fp16``, ``bf16`` or ``fp32``.

    ``auto`` is the first of bf16, fp16 and fp32 that the device computes natively. bf16 comes first, since it has
    float32's range and needs no loss scaling. The paper used fp16 (Appendix C); here only older GPUs and those who ask
    for it do (docs/precision.md).

    Raises:
        RequestError: The device cannot do what was asked; the message names what it can.
    """
    native = available_precisions(device_type)
    if asked == "auto":
        return native[0]
    available = {
        "cuda": native,
        "cpu": ("fp16", "bf16", "fp32"),  # any CPU can emulate fp16 and bf16
    }.get(device_type, ("fp16", "fp32"))  # Apple's and Intel's GPUs: Accelerate scales losses there, too
    if asked not in available:
        raise RequestError(
            f"training.precision: dpstune does not support {asked} on device {device_type!r}; "
            f"choose {' or '.join(available)}"
        )
    return asked


def available_precisions(device_type: str) -> tuple[str, ...]:
    """Return the precisions a device computes natively, the preferred one first."""
    import torch

    if device_type == "cuda":
        return ("bf16", "fp16", "fp32") if torch.cuda.is_bf16_supported(False) else ("fp16", "fp32")
    if device_type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or has_matrix_units("bf16")):
        return ("bf16", "fp32")
    return ("fp32",)


def has_matrix_units(precision: str) -> bool:
    """Tell whether this CPU has units that multiply matrices of a half precision (AMX): ``fp16`` or ``bf16``."""
    import torch

    if precision == "bf16":
        return torch.cpu._is_amx_tile_supported()
    fp16_units: Callable[[], bool] = getattr(torch.cpu, "_is_amx_fp16_supported", bool)  # torch 2.6 does not ask
    return precision == "fp16" and fp16_units()


def slow_precision(precision: str, device_type: str) -> str | None:
    """Return a warning of a precision that a CPU does not compute natively; None in all other cases."""
    if device_type != "cpu" or precision in available_precisions(device_type):
        return None
    return f"{precision} is slow on this CPU; training.precision=auto takes what it computes natively"


@no_garbage_search()
def device_type() -> str:
    """Return the kind of device this process computes on; in a distributed run, this first connects the ranks."""
    from accelerate import PartialState

    fix_workspaces()
    if "LOCAL_RANK" in os.environ:
        # Its functions have the group of all ranks as a default argument. If it were imported after that group is
        # made, they would keep the group and its threads to the end of the process.
        import torch.distributed.nn  # noqa: F401
    kind: str = PartialState(cpu=_cpu_alone()).device.type
    return kind


def _cpu_alone() -> bool:
    """Tell whether there is no accelerator: only then are the ranks of a launcher connected on the CPU."""
    import torch

    return not torch.accelerator.is_available()


def new_accelerator(precision: str) -> Accelerator:
    """Return a new Accelerator for this run, even if the process has trained another run before.

    Args:
        precision: fp16, bf16 or fp32.

    Raises:
        RequestError: The launcher cuts weights or gradients into pieces; methods need them whole.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin, TorchDynamoPlugin

    for plugin in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{plugin}", "false").lower() in ("1", "true", "yes"):
            raise RequestError(
                f"the launcher asks for {plugin}, which cuts gradients into pieces; every rank needs them whole: start "
                "with `accelerate launch --multi_gpu`"
            )
    on_cpu = device_type() == "cpu"  # also beside a GPU, if a launcher was told so
    if on_cpu:
        keep_freed_memory()
        bound_kernel_caches()
    fp16_on_cpu = precision == "fp16" and on_cpu
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(
        cpu=_cpu_alone(),
        # Set here, so that a launcher's configuration cannot change what the recipe says.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_plugin=TorchDynamoPlugin(backend="no"),
        mixed_precision="no" if precision == "fp32" or fp16_on_cpu else precision,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)],
    )
    if fp16_on_cpu:
        compute_in_fp16_on_cpu(accelerator)
    if accelerator.device.type == "cuda":
        ask_for_the_same_bits()
    return accelerator


def compute_in_fp16_on_cpu(accelerator: Accelerator) -> None:
    """Have an Accelerator compute in fp16 on a CPU; it was made without mixed precision and has prepared no model yet.

    Accelerate itself offers fp16 on accelerators only. From here on the same code runs as on a GPU: autocast around the
    forward pass, scaled losses, ``unscale_gradients``, skipped steps.
    """
    import torch

    accelerator.state._mixed_precision = "fp16"
    accelerator.native_amp = True
    accelerator.scaler = torch.amp.GradScaler("cpu")


def part_from_the_other_ranks() -> None:
    """End the process group, if there is one: its threads abort a process that ends before they do."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # wrapped models of finished runs are in reference cycles, and hold the group
        torch.distributed.destroy_process_group()


# Names of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_TRIMMED_FROM, _MMAPS_AT_MOST = 128 * 1024, 65536  # what they are by default


def keep_freed_memory() -> None:
    """Have glibc keep the memory that this process frees, and use it again; no other C library is changed.

    A step frees its activations, and the next step needs as much again. By default, glibc returns large blocks to the
    system. To get them back, page by page, each cleared first, takes some percent of a step of many examples on a CPU
    (benchmarks/README.md).
    """
    if _libc_is_glibc():
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def give_memory_back() -> None:
    """Give the system what runs of this process have freed, and have glibc do so by itself again."""
    free_earlier_runs()
    if _libc_is_glibc():
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, _MMAPS_AT_MOST)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIMMED_FROM)
        libc.malloc_trim(0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def bound_kernel_caches() -> None:
    """Have oneDNN keep only its newest 64 kernels, unless the environment sets a number; to be called before its first.

    It makes kernels for every shape it meets, and by default keeps 1024 of them, up to a megabyte each in bf16. Batches
    have hundreds of shapes. On most processors to make a kernel again costs no measurable time; where it has matrix
    units (AMX) it costs much, and few shapes occur (``PassCost``): there all are kept (benchmarks/README.md).
    """
    kept = "1024" if has_matrix_units("bf16") else "64"
    for cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(cache, kept)


def _libc_is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its work, so that a time that is taken next includes it."""
    if device.type != "cpu":
        import torch

        torch.accelerator.synchronize(device)


def free_earlier_runs() -> None:
    """Free what finished runs of this process hold.

    A run's model, wrapped and hooked, is in reference cycles, which Python would free only much later. Called before
    torch is imported, so that a first run has little to search.
    """
    gc.collect()


def reset_peak_memory(device: torch.device) -> None:
    """Measure the peak of memory from now on, where the system allows it; for a process that trains several runs."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        if _libc_is_glibc():
            ctypes.CDLL(None).malloc_trim(0)  # memory that was kept for an earlier run is not this one's
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # on Linux: the peak becomes what is held now


def peak_memory_bytes(device: torch.device) -> int:
    """Return this process's peak memory since the last reset: of the GPU on CUDA, else main memory."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")  # on Linux, getrusage includes the peak of the parent process
    if status.exists() and "VmHWM:" in (text := status.read_text()):
        return int(text.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    import resource

    kilobytes_or_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes_or_bytes if sys.platform == "darwin" else kilobytes_or_bytes * 1024


def visible_gpus() -> list[str]:
    """Return the CUDA devices this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return []
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def gpu_identity(name: str) -> str:
    """Return what tells the current GPU from every other, however a process sees it.

    Args:
        name: What is returned where there is none, or where it has not even room for what CUDA itself needs.
    """
    import torch

    if not torch.cuda.is_available():
        return name
    try:
        return str(torch.cuda.get_device_properties(0).uuid)
    except RuntimeError as error:
        if is_out_of_memory(error):
            return name
        raise


def give_gpu_memory_back() -> None:
    """Free the memory that nothing here needs any more, finished runs' models too, for other processes."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # does nothing where CUDA was not used


def free_gpu_bytes() -> int:
    """Return how much memory of the current GPU is used neither by this process nor by others, in bytes."""
    import torch

    give_gpu_memory_back()
    try:
        return torch.cuda.mem_get_info()[0]
    except RuntimeError as error:  # not even room for what CUDA itself needs
        if is_out_of_memory(error):
            return 0
        raise


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether a GPU had no memory left: torch's own error, or what CUDA and its libraries say of it."""
    import torch

    is_told = isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
    return isinstance(error, torch.OutOfMemoryError) or is_told


def describe_environment(device: torch.device, precision: str, processes: int) -> dict[str, Any]:
    """Describe machine and software: what a reader of the numbers must know."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "device_type": device.type,
        "precision": precision,
        "processes": processes,
        "packages": {name: _version(name) for name in PACKAGES},
    }


def with_earlier(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the environment of a run that goes on, with those that it had before under ``earlier``.

    Args:
        now: What ``describe_environment`` says, and more.
        before: The same of the process that the run goes on from; None where it begins.

    >>> begun = {"device": "cpu", "packages": {"torch": "2.6.0"}}
    >>> with_earlier(begun, begun) == with_earlier(begun, None) == begun
    True
    >>> with_earlier({"device": "cpu", "packages": {"torch": "2.13.0"}}, begun)["earlier"] == [begun]
    True
    """
    if before is None:
        return dict(now)
    last = {key: value for key, value in before.items() if key != "earlier"}
    earlier = [*before.get("earlier", []), *([last] if last != now else [])]
    return {**now, "earlier": earlier} if earlier else dict(now)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
