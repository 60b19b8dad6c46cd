"""What errors say of memory that ran out."""

import pytest

from dpstune.device.hardware import is_out_of_memory
from dpstune.errors import NO_MEMORY, out_of_memory


@pytest.mark.parametrize("told", NO_MEMORY)
def test_what_is_out_of_memory_for_a_worker_is_so_for_the_user(told):
    error = RuntimeError(f"CUDA error: {told} when calling `cublasCreate(handle)`")
    assert is_out_of_memory(error)
    assert "training.gradient_checkpointing=true" in out_of_memory(error)
