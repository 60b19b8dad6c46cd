"""Only the word embeddings that training uses are trained; the model is the same as if all were."""

import copy
from contextlib import nullcontext

import pytest
import torch

from dpstune.errors import RequestError
from dpstune.models.structure import word_embeddings
from dpstune.models.vocabulary import AllWords, narrow, refuse_unknown_tokens
from dpstune.settings.sections import TrainingSection
from dpstune.training.optim import build_optimizer
from tests.tiny import FAMILIES, tiny_classifier, tiny_tokenizer

STEPS = 6


def batch_of(seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 40, (4, 9), generator=generator)
    ids[:, -1] = 3
    ids[0, 6:] = 0
    ids[0, 5] = 3
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": torch.randint(0, 2, (4,))}


def take_steps(model, used=None, steps=range(STEPS)):
    """Train with a rate that rises, as in warmup; return the optimizer."""
    optimizer = build_optimizer(model, TrainingSection(learning_rate=1e-2, weight_decay=0.1))
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * step / STEPS
        torch.manual_seed(step)
        model(**batch_of(step)).loss.backward()
        with nullcontext() if used is None else used.decayed_by(optimizer):
            optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("family", [*FAMILIES, "albert", "distilbert"])
def test_the_trained_model_is_the_same(family):
    whole = tiny_classifier(family, vocab_size=300).train()
    parted = copy.deepcopy(whole)
    used = narrow(parted, torch.arange(5, 40))
    names = list(whole.state_dict())
    assert list(parted.state_dict()) == names
    assert len(word_embeddings(parted)[0].weight) < 50
    take_steps(whole)
    optimizer = take_steps(parted, used)
    held = sum(value.numel() for state in optimizer.state.values() for value in state.values())
    assert held < sum(parameter.numel() for parameter in whole.parameters()) * 2
    with used.whole():
        inside = {name: tensor.clone() for name, tensor in parted.state_dict().items()}
    used.restore()
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parted.state_dict()[name], tensor, rtol=1e-5, atol=1e-7)
        assert torch.equal(inside[name], parted.state_dict()[name])
    words = word_embeddings(parted)
    assert all(module.weight is words[0].weight for module in words)
    assert [module.padding_idx for module in words] == [module.padding_idx for module in word_embeddings(whole)]
    whole.eval(), parted.eval()
    others = torch.randint(50, 300, (2, 7))
    others[:, -1] = 3
    torch.testing.assert_close(parted(others).logits, whole(others).logits, rtol=1e-4, atol=1e-5)


def test_unused_words_are_what_weight_decay_makes_of_them():
    model = tiny_classifier(vocab_size=300).train()
    before = word_embeddings(model)[0].weight.detach().clone()
    used = narrow(model, torch.arange(5, 40))
    take_steps(model, used)
    left = 1.0
    for step in range(STEPS):
        left *= 1 - 1e-2 * step / STEPS * 0.1
    assert used.factor == pytest.approx(left, rel=1e-12)
    used.restore()
    torch.testing.assert_close(word_embeddings(model)[0].weight[100:], before[100:] * left, rtol=1e-6, atol=0)


def test_a_step_that_the_loss_scale_skips_decays_nothing():
    model = tiny_classifier(vocab_size=300).train()
    used = narrow(model, torch.arange(5, 40))
    optimizer = build_optimizer(model, TrainingSection(learning_rate=1e-2, weight_decay=0.1))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    factors = []
    for step, spoil in enumerate([True, False, True, False]):
        scaler.scale(model(**batch_of(step)).loss).backward()
        if spoil:
            next(model.parameters()).grad[0] = float("inf")
        with used.decayed_by(optimizer):
            scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        factors.append(used.factor)
    left = 1 - 1e-2 * 0.1
    assert factors == pytest.approx([1.0, left, left, left**2], rel=1e-12)


def test_a_token_without_an_embedding_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens("granny")
    number = tokenizer.convert_tokens_to_ids("granny")
    model = tiny_classifier(vocab_size=number)
    refuse_unknown_tokens(model, number - 1, tokenizer)
    with pytest.raises(RequestError, match=f"gives 'granny' the id {number}, but the model embeds {number} tokens"):
        refuse_unknown_tokens(model, number, tokenizer)
    refuse_unknown_tokens(torch.nn.Linear(1, 1), 7, tokenizer)  # it embeds no words
    tokenizer.pad_token = "granny"
    with pytest.raises(RequestError, match=f"gives 'granny' the id {number}, but"):
        refuse_unknown_tokens(model, 7, tokenizer)


def test_what_is_saved_halfway_goes_on_with_the_same_bits():
    straight = tiny_classifier(vocab_size=300).train()
    stopped, continued = copy.deepcopy(straight), copy.deepcopy(straight)
    used = [narrow(model, torch.arange(5, 40)) for model in (straight, stopped, continued)]
    optimizers = [build_optimizer(model, TrainingSection(weight_decay=0.1)) for model in (straight, stopped, continued)]

    def step(number, which):
        torch.manual_seed(number)
        model, optimizer = (straight, stopped, continued)[which], optimizers[which]
        model(**batch_of(number)).loss.backward()
        with used[which].decayed_by(optimizer):
            optimizer.step()
        optimizer.zero_grad()

    for number in range(4):
        step(number, 0)
    for number in range(2):
        step(number, 1)
    with used[1].whole(), used[2].whole():
        continued.load_state_dict(stopped.state_dict())
    used[2].factor = used[1].factor
    optimizers[2].load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
    for number in range(2, 4):
        step(number, 2)
    for each in (used[0], used[2]):
        each.restore()
    for name, tensor in straight.state_dict().items():
        assert torch.equal(continued.state_dict()[name], tensor), name


@pytest.mark.parametrize("number", [200, -1])
def test_a_word_that_training_does_not_use_is_an_error(number):
    model = tiny_classifier(vocab_size=300)
    narrow(model, torch.tensor([*range(5, 40), 299]))  # -1 would count from the end
    with pytest.raises(IndexError, match=f"token id {number} is in no training example"):
        model(torch.tensor([[2, number, 3]]))


def test_a_run_goes_on_with_the_words_it_began_with():
    begun = narrow(tiny_classifier(vocab_size=300), torch.arange(5, 40)).ids
    fewer = narrow(tiny_classifier(vocab_size=300), torch.arange(5, 20), begun_with=begun)
    assert torch.equal(fewer.ids, begun)
    with pytest.raises(RequestError, match=r"not that of token id 40\); go on with that version, or move"):
        narrow(tiny_classifier(vocab_size=300), torch.arange(5, 60), begun_with=begun)
    frozen = tiny_classifier(vocab_size=300).requires_grad_(False)
    with pytest.raises(RequestError, match=r"\(a part of them\)"):
        narrow(frozen, torch.arange(5, 40), begun_with=begun)


def test_where_it_cannot_be_done_nothing_changes():
    def unchanged(model, ids):
        weight = word_embeddings(model)[0].weight
        return type(narrow(model, ids)) is AllWords and word_embeddings(model)[0].weight is weight

    few = torch.arange(5, 40)
    assert unchanged(tiny_classifier(vocab_size=300), torch.arange(200))
    frozen = tiny_classifier(vocab_size=300)
    frozen.requires_grad_(False)
    assert unchanged(frozen, few)
    tied = tiny_classifier(vocab_size=300)
    tied.also = torch.nn.Linear(16, 300)
    tied.also.weight = word_embeddings(tied)[0].weight
    assert unchanged(tied, few)
    sparse = tiny_classifier(vocab_size=300)
    word_embeddings(sparse)[0].sparse = True
    assert unchanged(sparse, few)
    assert type(narrow(torch.nn.Linear(2, 2), few)) is AllWords


def test_ids_are_found_by_name_and_special_ones_in_lists():
    model = tiny_classifier(vocab_size=300, eos_token_id=[3, 250]).eval()
    expected = model(torch.tensor([[2, 7, 250]])).logits
    words = word_embeddings(model)[0]
    embedded = words(torch.tensor([7, 250]))
    narrow(model, torch.arange(5, 40))
    assert torch.equal(words(input=torch.tensor([7, 250])), embedded)
    torch.testing.assert_close(model(torch.tensor([[2, 7, 250]])).logits, expected)


def test_a_model_of_unknown_code_is_left_alone():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(300, 4)

        def get_input_embeddings(self):
            return self.words

    assert type(narrow(Own(), torch.arange(5))) is AllWords
