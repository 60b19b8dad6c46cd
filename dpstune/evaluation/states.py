"""The hidden states that an encoder gives texts: one vector a text and layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpstune.data.tokens import TokenDataset
    from dpstune.settings.sections import ModelSection


def load_encoder(model: ModelSection) -> nn.Module:
    """Load a model's encoder, without head or decoder, in float32 on this machine's device, in eval mode.

    Raises:
        RequestError: There is no such model, or it has no (safetensors) weights of a whole encoder.
        RunError: The hub could not be reached.
    """
    import torch

    from dpstune.device.hardware import device_type
    from dpstune.models.loading import load_classifier

    loaded = load_classifier(model, label_names=("0", "1"), kind="classification", dropout=None, seed=0)
    base: Any = loaded.base_model
    encoder: nn.Module = base.get_encoder() if loaded.config.is_encoder_decoder else base
    return encoder.to(torch.device(device_type())).eval()


def mean_states(encoder: nn.Module, dataset: TokenDataset, *, batch_size: int, last_only: bool = False) -> torch.Tensor:
    """Return each text's hidden states, float32 [texts, layers + 1, width], on the CPU, in the dataset's order.

    A text's state is the mean over its tokens, those that mark its beginning and its end among them, padding not. Row 0
    is what the embeddings give to the first layer; row i, what layer i gives; the last, what the encoder gives to a
    head: where it normalises once more after its layers, after that.

    Args:
        encoder: What ``load_encoder`` returns.
        dataset: The tokenised texts, one or more.
        batch_size: Texts a batch.
        last_only: Return the last row alone, [texts, 1, width]; the states of the other layers are not kept.
    """
    import torch

    from dpstune.evaluation.scoring import compute_by_length

    def mean_over_tokens(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        found = encoder(**inputs, output_hidden_states=not last_only)
        below = () if last_only else found.hidden_states[:-1]
        inside = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).unsqueeze(-1)
        states = (*below, found.last_hidden_state)
        return torch.stack([(layer.float() * inside).sum(1) / inside.sum(1) for layer in states], dim=1)

    device = next(encoder.parameters()).device
    rows, computed = compute_by_length(encoder, dataset, mean_over_tokens, batch_size=batch_size, device=device)
    in_order = torch.cat(computed).cpu()
    found = torch.empty_like(in_order)
    found[rows] = in_order
    return found
