import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpstune.methods.subnetwork import Cycle, kth_largest_of, least_of_largest, octets, pack_bits, select, unpack_bytes

probabilities = st.floats(0.0, 1.0, exclude_max=True)
scores = hnp.arrays(
    "float32", hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(0, 4, width=16)
)


@given(scores, probabilities)
def test_selection_is_that_of_a_full_sort(array, p):
    tensor = torch.from_numpy(array)
    k = math.ceil(tensor.numel() * (1 - p))
    threshold = tensor.flatten().sort(descending=True).values[k - 1]
    chosen = select(tensor, p)
    assert torch.equal(chosen, tensor >= threshold)
    assert chosen.sum() >= k


# Few values, so that many tie; infinities, and values whose bits differ in the last place.
ties = hnp.arrays(
    "float32",
    st.integers(1, 60),
    elements=st.sampled_from([0.0, 1e-45, 1e-30, 1.0, float(np.nextafter(np.float32(1), 2)), 3e38, float("inf")]),
)
shares = st.one_of(st.floats(0.0, 1.0, exclude_min=True), st.sampled_from([1e-9, 0.5, 1 - 1e-9, 1.0]))


@given(ties, shares)
def test_a_gpu_finds_the_kth_value_by_the_k_largest(array, share):
    scores = torch.from_numpy(array)
    k = math.ceil(len(scores) * share)
    assert torch.equal(least_of_largest(scores, k), scores.kthvalue(len(scores) - k + 1).values)


@given(ties, shares, st.integers(0, 60), st.sampled_from([torch.float32, torch.float64]))
def test_the_kth_value_of_several_tensors_is_found_bit_by_bit(array, share, cut, dtype):
    scores = torch.from_numpy(array).to(dtype)
    k = math.ceil(len(scores) * share)
    several = [part for part in (scores[:cut], scores[cut:].unsqueeze(0)) if part.numel()]
    assert torch.equal(kth_largest_of(several, share), scores.kthvalue(len(scores) - k + 1).values)


def test_all_ties_stay_in():
    assert select(torch.zeros(3, 4), p=0.9).all()


@given(hnp.arrays("bool", hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_packing_is_undone_exactly_and_takes_a_bit_a_weight(array):
    mask = torch.from_numpy(array)
    packed = pack_bits(mask)
    assert packed.numel() == math.ceil(mask.numel() / 8)
    assert torch.equal(unpack_bytes(packed, octets(packed.device))[: mask.numel()].view(mask.shape), mask)


@given(st.integers(1, 400), st.floats(0, 1, exclude_min=True), st.data())
def test_stages_alternate_in_blocks_of_update_steps(total, ratio, data):
    cycle = Cycle.of(total, ratio)
    assert cycle.update_steps == max(1, int(total * ratio))
    step = data.draw(st.integers(1, total))
    assert cycle.stage(step) == (1 if math.ceil(step / cycle.update_steps) % 2 else 2)
    assert cycle.stage(step + cycle.update_steps) != cycle.stage(step)
    assert cycle.opens_block(step) == (step == 1 or cycle.stage(step) != cycle.stage(step - 1))
