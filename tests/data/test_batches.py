import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpstune.data.batches import StepPlan, step_batches
from dpstune.recipe.schema import Recipe

lengths_strategy = st.lists(st.integers(1, 40), min_size=1, max_size=120)
batching_strategy = st.sampled_from(["random", "bucketed"])


def epoch_of(lengths, batch_size=4, chunks_per_step=1, batching="random", seed=0, epoch=0):
    return step_batches(
        lengths, batch_size=batch_size, chunks_per_step=chunks_per_step, batching=batching, seed=seed, epoch=epoch
    )


def flat(nested):
    return list(itertools.chain.from_iterable(nested))


def plan_of(lengths, processes=1, seed=0, **training):
    recipe = Recipe.model_validate({"model": {"name": "minilm"}, "task": "toy-nli", "training": training, "seed": seed})
    return StepPlan(recipe, lengths, processes)


def padding(steps, lengths):
    """Return the tokens of padding in an epoch's chunks."""
    chunks = flat(steps)
    return sum(max(lengths[i] for i in chunk) * len(chunk) - sum(lengths[i] for i in chunk) for chunk in chunks)


@settings(max_examples=80)
@given(
    lengths=lengths_strategy,
    batch_size=st.integers(1, 9),
    chunks=st.integers(1, 4),
    batching=batching_strategy,
    seed=st.integers(0, 10**6),
    epoch=st.integers(0, 5),
)
def test_every_example_comes_once_an_epoch_in_full_steps_but_one(lengths, batch_size, chunks, batching, seed, epoch):
    steps = epoch_of(lengths, batch_size, chunks, batching, seed, epoch)
    assert sorted(flat(flat(steps))) == list(range(len(lengths)))
    size = batch_size * chunks
    sizes = [len(flat(step)) for step in steps]
    assert sorted(sizes, reverse=True) == [size] * (len(lengths) // size) + [len(lengths) % size] * bool(
        len(lengths) % size
    )
    for step in steps:
        assert all(len(chunk) == batch_size for chunk in step[:-1])
        assert 0 < len(step[-1]) <= batch_size
    assert steps == epoch_of(lengths, batch_size, chunks, batching, seed, epoch)


@settings(max_examples=60)
@given(
    lengths=lengths_strategy,
    batch_size=st.integers(1, 6),
    chunks=st.integers(1, 6),
    batching=batching_strategy,
    seed=st.integers(0, 10**6),
)
def test_the_same_examples_make_a_step_however_it_is_cut_into_chunks(lengths, batch_size, chunks, batching, seed):
    cut = epoch_of(lengths, batch_size, chunks, batching, seed)
    whole = epoch_of(lengths, batch_size * chunks, 1, batching, seed)
    assert [flat(step) for step in cut] == [flat(step) for step in whole]


@pytest.mark.parametrize("batching", ["random", "bucketed"])
def test_epochs_and_seeds_have_orders_of_their_own(batching):
    lengths = [1 + i % 7 for i in range(64)]
    orders = [
        tuple(flat(flat(epoch_of(lengths, batching=batching, seed=seed, epoch=epoch))))
        for seed in range(4)
        for epoch in range(4)
    ]
    assert len(set(orders)) == 16


def test_the_random_order_does_not_look_at_lengths():
    assert epoch_of([1] * 50) == epoch_of(list(range(50)))


@pytest.mark.parametrize("seed", range(4))
def test_bucketed_steps_hold_similar_lengths_and_waste_little_on_padding(seed):
    lengths = [5 + (i * 37) % 90 for i in range(500)]
    steps = epoch_of(lengths, 8, batching="bucketed", seed=seed)
    assert padding(steps, lengths) < 0.15 * padding(epoch_of(lengths, 8, seed=seed), lengths)


def test_bucketed_steps_do_not_come_in_the_order_of_length():
    lengths = list(range(400))
    first = [step[0][0] for step in epoch_of(lengths, 4, batching="bucketed")]
    descents = sum(before > after for before, after in itertools.pairwise(first))
    assert descents > len(first) / 4


def test_bucketed_epochs_group_other_examples_together():
    lengths = [1 + i % 50 for i in range(2000)]
    groups = [
        {frozenset(flat(step)) for step in epoch_of(lengths, 4, batching="bucketed", epoch=epoch)} for epoch in range(2)
    ]
    assert len(groups[0] & groups[1]) < len(groups[0]) / 10


# The plan of a run


@settings(max_examples=80)
@given(
    count=st.integers(1, 70),
    batch_size=st.integers(1, 6),
    accumulation=st.integers(1, 4),
    processes=st.integers(1, 5),
    batching=batching_strategy,
    step=st.integers(1, 40),
)
def test_ranks_share_a_step_so_that_its_gradient_is_the_mean_over_its_examples(
    count, batch_size, accumulation, processes, batching, step
):
    plan = plan_of(
        [1 + i % 9 for i in range(count)],
        processes,
        batch_size=batch_size,
        gradient_accumulation=accumulation,
        batching=batching,
    )
    chunks = plan.chunks(step)
    examples = flat(chunks)
    shares = [plan.share(chunks, rank) for rank in range(processes)]

    real = sorted(
        ((number, chunk) for share in shares for number, chunk, weight in share if weight), key=lambda x: x[0]
    )
    assert real == list(enumerate(chunks))
    numbers = [number for share in shares for number, _, _ in share]
    assert len(set(numbers)) == len(numbers)  # each draws dropout of its own
    assert len({len(share) for share in shares}) == 1  # ranks wait for one another at each chunk
    assert all(len(share) <= accumulation for share in shares)
    assert all(chunk for share in shares for _, chunk, _ in share)

    losses = {i: (i * 7919 % 101) / 10 for i in examples}
    ranks = [sum(weight * sum(losses[i] for i in chunk) / len(chunk) for _, chunk, weight in share) for share in shares]
    assert sum(ranks) / processes == pytest.approx(sum(losses.values()) / len(losses))
    assert sum(weight for share in shares for _, _, weight in share) == pytest.approx(processes)


@pytest.mark.parametrize("batching", ["random", "bucketed"])
@pytest.mark.parametrize(("batch_size", "accumulation", "processes"), [(12, 1, 1), (4, 3, 1), (4, 1, 3), (2, 3, 2)])
def test_a_step_has_the_same_examples_on_one_device_and_on_many(batching, batch_size, accumulation, processes):
    lengths = [1 + i * 31 % 97 for i in range(1300)]
    plan = plan_of(
        lengths, processes, batch_size=batch_size, gradient_accumulation=accumulation, batching=batching, seed=3
    )
    one = plan_of(lengths, batch_size=12, batching=batching, seed=3)
    assert plan.steps_per_epoch == one.steps_per_epoch == 109
    for step in range(1, 230):
        assert flat(plan.chunks(step)) == flat(one.chunks(step))


def test_steps_count_from_one_and_run_on_into_the_next_epoch():
    plan = plan_of([1] * 10, batch_size=4)
    assert plan.steps_per_epoch == 3
    epochs = [flat(flat(plan.chunks(step) for step in range(first, first + 3))) for first in (1, 4)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]
    assert [len(flat(plan.chunks(step))) for step in range(1, 7)] == [4, 4, 2, 4, 4, 2]


def test_a_resumed_plan_goes_on_where_the_first_one_was():
    lengths = [1 + i % 5 for i in range(33)]
    straight = plan_of(lengths, batch_size=4, seed=9)
    expected = {step: straight.chunks(step) for step in range(1, 30)}
    resumed = plan_of(lengths, batch_size=4, seed=9)
    assert {step: resumed.chunks(step) for step in (29, 12, 13, 1)} == {
        step: expected[step] for step in (29, 12, 13, 1)
    }


def test_tokens_are_counted_without_padding():
    assert plan_of([10, 20, 30, 40], batch_size=2).tokens([[0, 3], [1]]) == 70
