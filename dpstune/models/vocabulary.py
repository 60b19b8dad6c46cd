"""The rows of a model's word embeddings that its training examples use, trained in the place of all of them.

A row that no training example uses never has a gradient. AdamW's moments of it stay zero, and all that a step changes
of it is the weight decay. On small data most of a vocabulary is such: 500 texts use 2,000 to 8,000 of MiniLM's 30,522
rows, half of its weights are word embeddings, and to zero, clip and update them takes as long as short texts take.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dpstune.errors import RequestError
from dpstune.models.structure import special_ids, word_embeddings

if TYPE_CHECKING:
    from torch.optim import Optimizer

MOST = 0.5  # of a vocabulary; where training uses more, little is saved


class AllWords:
    """All of a model's word embeddings, trained as they are: what ``UsedWords`` does is not needed."""

    factor: float | None = None

    def decay(self, optimizer: Optimizer) -> None:
        """Do nothing: the optimizer decays all rows."""

    def whole(self) -> AbstractContextManager[None]:
        """Do nothing: they are whole."""
        return nullcontext()

    def restore(self) -> None:
        """Do nothing: the model has its own parameter."""


class UsedWords(AllWords):
    """A model's word embeddings, of which only the used rows are a parameter until ``restore``.

    The other rows are what AdamW makes of them: the weights before step 1, times 1 - rate * weight decay for each
    step. They are computed when ``whole`` asks for them, from the weights before step 1 and from one factor; so a run
    that was interrupted has the same bits as one that was not.

    Args:
        modules: The model's word embeddings, which share one weight.
        used: int64 [U]: the ids of the used rows, each once.

    >>> words = nn.Embedding(5, 2)
    >>> before = words.weight.detach().clone()
    >>> used = UsedWords([words], torch.tensor([1, 3]))
    >>> tuple(words.weight.shape), torch.equal(words(torch.tensor([3])), before[[3]])
    ((2, 2), True)
    >>> with used.whole():
    ...     torch.equal(words.weight, before)
    True
    """

    def __init__(self, modules: list[nn.Embedding], used: Tensor) -> None:
        self._modules, self._used = modules, used
        self._parameter = next(modules[0].parameters())
        self._before = self._parameter.detach()
        self.weight = nn.Parameter(self._before[used].clone())
        self.factor: float = 1.0
        """What weight decay has left of an unused row so far."""
        self._paddings = [module.padding_idx for module in modules]
        self._row_of = torch.full((len(self._before),), -1)  # an id that is not used has no row: looking it up fails
        self._row_of[used] = torch.arange(len(used))
        self._handles = [module.register_forward_pre_hook(self._ids_to_rows, with_kwargs=True) for module in modules]
        self._put(self.weight)

    @property
    def _narrow(self) -> bool:
        return self._modules[0].weight is self.weight

    def _ids_to_rows(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if not self._narrow:
            return None
        if given:
            return (self._row_of[given[0]], *given[1:]), named
        return given, {name: self._row_of[ids] for name, ids in named.items()}

    def _put(self, weight: nn.Parameter) -> None:
        for module, padding in zip(self._modules, self._paddings, strict=True):
            module.weight = weight
            module.padding_idx = int(self._row_of[padding]) if self._narrow and padding is not None else padding

    def decay(self, optimizer: Optimizer) -> None:
        """Take in that ``optimizer`` has made a step, at the rate it still has."""
        for group in optimizer.param_groups:
            if any(parameter is self.weight for parameter in group["params"]):
                self.factor *= 1.0 - float(group["lr"]) * group["weight_decay"]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Have the whole word embeddings in the model, to be saved, loaded or evaluated; used rows are taken back."""
        if not self._narrow:  # restored; or an evaluation that is stopped, which saves within
            yield
            return
        whole = nn.Parameter(self._filled(), requires_grad=False)
        self._put(whole)
        try:
            yield
        finally:
            with torch.no_grad():
                self.weight.copy_(whole[self._used])
            self._put(self.weight)

    def restore(self) -> None:
        """Give the model its own parameter back, whole and trained; training is over."""
        self._parameter.data = self._filled()
        self._put(self._parameter)
        for handle in self._handles:
            handle.remove()

    def _filled(self) -> Tensor:
        filled = self._before * self.factor
        filled[self._used] = self.weight.detach()
        return filled


def narrow(model: nn.Module, ids: Tensor) -> AllWords:
    """Narrow a model's word embeddings to those that training uses; not where that cannot be done, or saves little.

    Args:
        model: A classifier, with all that happens to it before step 1 done.
        ids: int64 [N]: the token ids of the training examples, each once.
    """
    try:
        modules = word_embeddings(model)
    except RequestError:
        return AllWords()
    plain = [module for module in modules if isinstance(module, nn.Embedding) and _looks_up_alone(module)]
    if not _is_known(model) or len(plain) < len(modules):
        return AllWords()
    weight = plain[0].weight
    owners = [name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter is weight]
    config: Any = getattr(model, "config", None)
    paddings = [module.padding_idx for module in plain if module.padding_idx is not None]
    every = {*ids.tolist(), *paddings, *special_ids(config)}
    used = torch.tensor(sorted(number for number in every if 0 <= number < len(weight)))
    if len(owners) != len(plain) or not weight.requires_grad or len(used) > MOST * len(weight):
        return AllWords()
    return UsedWords(plain, used)


def _looks_up_alone(module: nn.Embedding) -> bool:
    """Tell whether a module does nothing but look rows up, each with a gradient of its own."""
    return _is_known(module) and module.max_norm is None and not (module.sparse or module.scale_grad_by_freq)


def _is_known(module: nn.Module) -> bool:
    """Tell whether torch or transformers made a module: another may use its weight, or read ids, in its own way."""
    return type(module).__module__.partition(".")[0] in ("torch", "transformers")
