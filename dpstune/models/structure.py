"""What a classifier is made of, from bottom to top: word embeddings, layers, pooler, head; found by structure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from dpstune.errors import RequestError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

    from dpstune.settings.tasks import Kind


def encoder_layers(model: nn.Module) -> list[nn.Module]:
    """Return the transformer layers from bottom to top; a decoder's come after its encoder's.

    They are the members of the base model's outermost ``nn.ModuleList``s; lists without linear layers do not count.
    Layers that share their weights (ALBERT) are one layer.

    Raises:
        RequestError: There are none; or a module has several such lists, as XLM keeps attention and feed-forward parts.
    """
    from torch import nn

    layers: list[nn.Module] = []
    stacks: list[str] = []
    for name, module in base_model(model).named_modules():
        inside = any(name.startswith(f"{stack}.") for stack in stacks)
        if isinstance(module, nn.ModuleList) and not inside and any(map(_computes, module)):
            stacks.append(name)
            layers.extend(module)
    parents = [stack.rpartition(".")[0] for stack in stacks]
    if not layers or len(set(parents)) < len(parents):
        raise RequestError(f"{type(model).__name__} has no stack of layers that dpstune could find")
    return layers


def configured_layers(config: PretrainedConfig) -> int | None:
    """Return how many layers, a decoder's among them, a configuration gives its models; None where it does not say.

    It is the configuration's own number: a model may keep its layers otherwise than ``encoder_layers`` can tell apart.
    """
    config = config.get_text_config()
    # ALBERT's layers share their weights within a group.
    layers: int | None = getattr(config, "num_hidden_groups", getattr(config, "num_hidden_layers", None))
    if layers is None or not config.is_encoder_decoder:
        return layers
    decoder: int = getattr(config, "decoder_layers", getattr(config, "num_decoder_layers", 0))
    return layers + decoder


def top_layers(model: nn.Module, count: int) -> list[nn.Module]:
    """Return the top ``count`` transformer layers, from bottom to top; see ``encoder_layers``.

    Args:
        model: A transformers classifier.
        count: ``method.layers``, 0 or more.

    Raises:
        RequestError: There are not so many, or none at all.
    """
    layers = encoder_layers(model)
    if count > len(layers):
        raise RequestError(f"method.layers: {count} is more than the {len(layers)} layers of {type(model).__name__}")
    return layers[len(layers) - count :]


def encoder_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters of the encoder layers by name; of a module without a base model, all of them.

    Raises:
        RequestError: A transformers model without a stack of layers.
    """
    layers = encoder_layers(model) if hasattr(model, "base_model") else [model]
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) in inside and p.requires_grad}


def encoder_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers inside the transformer layers, by their names in the model.

    Raises:
        RequestError: There is no stack of layers.

    >>> from torch import nn
    >>> list(encoder_linears(nn.Sequential(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]), nn.Linear(2, 3))))
    ['0.0', '0.1']
    """
    from torch import nn

    inside = {id(part) for layer in encoder_layers(model) for part in layer.modules() if isinstance(part, nn.Linear)}
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear) and id(part) in inside}


# How transformers calls what gives attention its queries and its values, and what gives it these and keys in one.
_QUERY_OR_VALUE = re.compile(r"(q|v|query|value)(_proj|_lin)?|in_proj|W?qkv(_proj)?")


def query_and_value_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers that give attention its queries and values, by their names in the model.

    Where one layer gives queries, keys and values together (DeBERTa, ModernBERT), that layer is returned.

    Raises:
        RequestError: There is none, or no stack of layers.
    """
    found = {
        name: linear
        for name, linear in encoder_linears(model).items()
        if _QUERY_OR_VALUE.fullmatch(name.rpartition(".")[2])
    }
    if not found:
        raise RequestError(f"{type(model).__name__} has no layers of queries and values that dpstune could find")
    return found


def base_model(model: nn.Module) -> nn.Module:
    """Return the pre-trained part of a transformers classifier, without its head; any other module is its own base."""
    base: nn.Module = getattr(model, "base_model", model)
    return base


def pooler(model: nn.Module) -> nn.Module | None:
    """Return the module that pools a sequence for the head, None where the head does so itself."""
    from torch import nn

    for owner in (base_model(model), model):
        found = getattr(owner, "pooler", None)
        if isinstance(found, nn.Module):
            return found
    return None


def output_layer(model: nn.Module) -> nn.Linear:
    """Return the layer that gives a classifier's logits: the last linear one above the base model.

    Raises:
        RequestError: There is none.
    """
    from torch import nn

    below = {id(module) for module in base_model(model).modules()}
    above = [module for module in model.modules() if isinstance(module, nn.Linear) and id(module) not in below]
    if not above:
        raise RequestError(f"{type(model).__name__} has no linear output layer that dpstune could find")
    return above[-1]


def value_layer(model: nn.Module, kind: Kind) -> nn.Linear | None:
    """Return the layer that gives the values of regression; None for another kind of task, or where none is found.

    The one of XLM and FlauBERT has an activation above it where their configuration names one: no layer gives values.
    """
    layer = None
    if kind == "regression":
        with suppress(RequestError):
            layer = output_layer(model)
    summary: nn.Module | None = getattr(model, "sequence_summary", None)
    has_activation = bool(getattr(getattr(model, "config", None), "summary_activation", None))
    return None if has_activation and summary is not None and layer in [*summary.modules()] else layer


_NEW = "_dpstune_new"


def mark_new(model: nn.Module, names: Iterable[str]) -> None:
    """Have ``head_parameters`` count parameters as the head's that were drawn, since the checkpoint does not hold them.

    Such is the pooler where a masked language model is the checkpoint: frozen, it would stay random.
    """
    setattr(model, _NEW, frozenset(names))


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters above the base model: the head's, which most pre-training has not seen.

    In DeBERTa those of the pooler are among them. So are those of a pooler that the checkpoint lacks, see ``mark_new``.
    Of a module without a base model, or with nothing above it, they are the last linear layer's.
    """
    from torch import nn

    below = {id(p) for p in base_model(model).parameters()}
    new: frozenset[str] = getattr(model, _NEW, frozenset())
    above = [parameter for name, parameter in model.named_parameters() if id(parameter) not in below or name in new]
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return above or [parameter for layer in layers[-1:] for parameter in layer.parameters()]


def word_embeddings(model: nn.Module) -> list[nn.Module]:
    """Return the modules that embed words: one, or several that share one weight (BART's encoder and decoder).

    Raises:
        RequestError: The model does not name any.
    """
    getter: Callable[[], nn.Module | None] = getattr(model, "get_input_embeddings", lambda: None)
    try:
        known = getter()
    except NotImplementedError:  # CANINE hashes characters
        known = None
    if known is None:
        raise RequestError(f"{type(model).__name__} has no word embeddings that dpstune could find")
    weight = getattr(known, "weight", None)
    return [
        module for module in model.modules() if module is known or (weight is not None and _weight(module) is weight)
    ]


def _weight(module: nn.Module) -> object:
    from torch import nn

    return module.weight if isinstance(module, nn.Embedding) else None


_SPECIAL_TOKENS = ("pad", "bos", "eos", "cls", "sep", "mask", "unk", "decoder_start")


def special_ids(config: Any) -> set[int]:
    """Return the ids of the special tokens that a configuration names: also those that a model itself puts in."""
    named = [getattr(config, f"{name}_token_id", None) for name in _SPECIAL_TOKENS]
    listed = [each if isinstance(each, list) else [each] for each in named]
    return {number for each in listed for number in each if isinstance(number, int)}


def parameter_depths(model: nn.Module) -> tuple[dict[str, int], int]:
    """Return each parameter's depth for layer-wise rates, and the depth of the head (Clark et al. 2020).

    With n layers, a parameter's depth is 0 below them (embeddings and their projections and norms), i + 1 in layer i
    (counted from 0), n + 1 above them in the base model (BERT's pooler, a final norm), and n + 2 in the head.

    Raises:
        RequestError: The model has no stack of layers.
    """
    layers = encoder_layers(model)
    head = len(layers) + 2
    base = base_model(model)
    depth_of: dict[int, int] = {id(parameter): 0 for parameter in base.parameters()}
    for child in _above(base, layers):
        depth_of |= {id(parameter): head - 1 for parameter in child.parameters()}
    for number, layer in enumerate(layers):
        depth_of |= {id(parameter): number + 1 for parameter in layer.parameters()}
    return {name: depth_of.get(id(parameter), head) for name, parameter in model.named_parameters()}, head


def _above(base: nn.Module, layers: list[nn.Module]) -> list[nn.Module]:
    """List the base model's parts that come after the top layer: the pooler, and what is declared after the layers.

    Nothing that embeds is above, wherever it is declared; nor is what follows an embedding that is declared after the
    layers: DeBERTa's relative positions, and their norm.
    """
    from torch import nn

    pooling = pooler(base)
    above = [] if pooling is None else [pooling]
    holder = base
    while holder is not layers[-1]:
        children = list(holder.named_children())
        place = max(n for n, (_, child) in enumerate(children) if any(part is layers[-1] for part in child.modules()))
        after = takewhile(lambda child: not isinstance(child[1], nn.Embedding), children[place + 1 :])
        above += [child for name, child in after if "embed" not in name]
        holder = children[place][1]
    return above


def initialize_again(model: Any, module: nn.Module, seed: int) -> None:
    """Initialise ``module`` again, as ``model`` initialises new weights.

    Args:
        model: The transformers model that ``module`` is part of.
        module: Layer, pooler or head.
        seed: The weights are drawn from it alone; no global generator changes.

    Raises:
        RequestError: The model does not know how to initialise its weights.
    """
    import torch

    if not hasattr(model, "_init_weights"):
        raise RequestError(f"{type(model).__name__} does not say how its weights are initialised; reinit needs that")
    # transformers does not initialise what carries this mark, since it was loaded.
    marked: list[Any] = [*module.modules(), *module.parameters(), *module.buffers()]
    for part in marked:
        vars(part).pop("_is_hf_initialized", None)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        place = [parameter.device for parameter in module.parameters()][:1]
        module.cpu()
        module.apply(model._init_weights)
        if place:
            module.to(place[0])


def _computes(module: nn.Module) -> bool:
    from torch import nn

    return any(isinstance(part, nn.Linear) for part in module.modules())
