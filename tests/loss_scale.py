"""Runs in fp16 that start with a loss scale so large that their first steps overflow."""

from dpstune.device import hardware

LARGE = 2.0**24


def scaling_from(scale):
    """What ``hardware.compute_in_fp16_on_cpu`` does, and a first loss scale."""
    compute = hardware.compute_in_fp16_on_cpu

    def compute_and_scale(accelerator):
        compute(accelerator)
        accelerator.scaler.load_state_dict({**accelerator.scaler.state_dict(), "scale": scale})

    return compute_and_scale
