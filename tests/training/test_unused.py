"""Weights that get no gradient are frozen, and nothing else changes."""

import pytest
import torch

from dpstune.training.unused import freeze_unused
from tests.tiny import FAMILIES, tiny_classifier


@pytest.mark.parametrize(("family", "unused"), [*((family, 0) for family in FAMILIES), ("esm", 2)])
def test_only_what_has_no_gradient_is_frozen(family, unused):
    layers_dropped = {"decoder_layerdrop": 0.9, "encoder_layerdrop": 0.9} if family == "bart" else {}
    model = tiny_classifier(family, **layers_dropped).train()
    model.base_model.eval()  # as a method may have it
    modes = [module.training for module in model.modules()]
    batch = {"input_ids": torch.tensor([[2, 8, 9, 3], [2, 7, 8, 3]]), "labels": torch.tensor([0, 1])}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    freeze_unused(model, lambda: model(**batch).loss + 0 * torch.rand(1).sum())
    assert torch.equal(torch.rand(2), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(weight.grad is None for weight in model.parameters())
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    assert len(frozen) == unused, frozen
