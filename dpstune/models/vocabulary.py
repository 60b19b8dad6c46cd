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
    from transformers import PreTrainedTokenizerBase

MOST = 0.5  # of a vocabulary; where training uses more, little is saved


class AllWords:
    """All of a model's word embeddings, trained as they are: what ``UsedWords`` does is not needed."""

    factor: float | None = None
    ids: Tensor | None = None

    def decayed_by(self, optimizer: Optimizer) -> AbstractContextManager[None]:
        """Do nothing: the optimizer decays all rows."""
        return nullcontext()

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
        self._modules = modules
        self.ids: Tensor = used
        """The ids of the used rows."""
        self._parameter = next(modules[0].parameters())
        self._before = self._parameter.detach()
        self.weight = nn.Parameter(self._before[used].clone())
        self.factor: float = 1.0
        """What weight decay has left of an unused row so far."""
        self._paddings = [module.padding_idx for module in modules]
        self._row_of = torch.full((len(self._before),), -1)
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
            return (self._rows(given[0]), *given[1:]), named
        return given, {name: self._rows(ids) for name, ids in named.items()}

    def _rows(self, ids: Tensor) -> Tensor:
        rows = self._row_of[ids]
        unused = (rows < 0).logical_or_(ids < 0)
        if bool(unused.any()):
            raise IndexError(
                f"token id {int(ids[unused][0])} is in no training example, so it has no trained embedding"
            )
        return rows

    def _put(self, weight: nn.Parameter) -> None:
        for module, padding in zip(self._modules, self._paddings, strict=True):
            module.weight = weight
            module.padding_idx = int(self._row_of[padding]) if self._narrow and padding is not None else padding

    @contextmanager
    def decayed_by(self, optimizer: Optimizer) -> Iterator[None]:
        """Decay the unused rows, too, where ``optimizer`` updates inside the block: it may skip a step in fp16."""
        before = self._updates(optimizer)
        yield
        if self._updates(optimizer) == before:
            return
        for group in optimizer.param_groups:
            if any(parameter is self.weight for parameter in group["params"]):
                self.factor *= 1.0 - float(group["lr"]) * group["weight_decay"]

    def _updates(self, optimizer: Optimizer) -> int:
        return int(optimizer.state.get(self.weight, {}).get("step", 0))

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Have the whole word embeddings in the model, to be saved, loaded or evaluated; used rows are taken back."""
        if not self._narrow:  # restored
            yield
            return
        whole = nn.Parameter(self._filled(), requires_grad=False)
        self._put(whole)
        try:
            yield
        finally:
            with torch.no_grad():
                self.weight.copy_(whole[self.ids])
            self._put(self.weight)

    def restore(self) -> None:
        """Give the model its own parameter back, whole and trained; training is over."""
        self._parameter.data = self._filled()
        self._put(self._parameter)
        for handle in self._handles:
            handle.remove()

    def _filled(self) -> Tensor:
        filled = self._before * self.factor
        filled[self.ids] = self.weight.detach()
        return filled


def narrow(model: nn.Module, ids: Tensor, begun_with: Tensor | None = None) -> AllWords:
    """Narrow a model's word embeddings to those that training uses; not where that cannot be done, or saves little.

    Args:
        model: A classifier, with all that happens to it before step 1 done.
        ids: int64 [N]: the token ids of the training examples, each once.
        begun_with: int64 [U]: what ``UsedWords.ids`` were where an interrupted run began; None: it begins now.

    Raises:
        RequestError: The run began without a word that its training examples use now.
    """
    modules = _narrowable(model)
    paddings = {module.padding_idx for module in modules if module.padding_idx is not None}
    named = {*ids.tolist(), *paddings, *special_ids(getattr(model, "config", None))}
    size = len(modules[0].weight) if modules else 0
    needed = {number for number in named if 0 <= number < size}
    if begun_with is not None:
        missing = needed.difference(begun_with.tolist())
        if missing or not modules:
            which = f"not that of token id {min(missing)}" if missing else "a part of them"
            raise RequestError(
                f"this run was begun by another version of dpstune, which trained other word embeddings ({which}); "
                "go on with that version, or move the run's folder away to train anew"
            )
        return UsedWords(modules, begun_with)
    if not modules or len(needed) > MOST * size:
        return AllWords()
    return UsedWords(modules, torch.tensor(sorted(needed)))


def refuse_unknown_tokens(model: nn.Module, largest: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse texts with a token, or padding, for which a model has no word embedding.

    Args:
        model: A classifier, before ``narrow``.
        largest: The largest token id in the texts.
        tokenizer: Names it.

    Raises:
        RequestError: There is such a token.
    """
    try:
        modules = word_embeddings(model)
    except RequestError:  # it embeds no words one by one
        return
    largest = max(largest, tokenizer.pad_token_id or 0)
    rows = min((each.num_embeddings for each in modules if isinstance(each, nn.Embedding)), default=largest + 1)
    if largest >= rows:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise RequestError(
            f"the tokenizer gives {token!r} the id {largest}, but the model embeds {rows} tokens; use the model's own "
            "tokenizer, or give the model more rows by `resize_token_embeddings` and save both"
        )


def _narrowable(model: nn.Module) -> list[nn.Embedding]:
    """Return the modules that share a model's word embeddings; none where they cannot be narrowed."""
    try:
        modules = word_embeddings(model)
    except RequestError:
        return []
    plain = [module for module in modules if isinstance(module, nn.Embedding) and _looks_up_alone(module)]
    if not _is_known(model) or len(plain) < len(modules) or not plain[0].weight.requires_grad:
        return []
    weight = plain[0].weight
    owners = [name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter is weight]
    return plain if len(owners) == len(plain) else []


def _looks_up_alone(module: nn.Embedding) -> bool:
    """Tell whether a module does nothing but look rows up, each with a gradient of its own."""
    return _is_known(module) and module.max_norm is None and not (module.sparse or module.scale_grad_by_freq)


def _is_known(module: nn.Module) -> bool:
    """Tell whether torch or transformers made a module: another may use its weight, or read ids, in its own way."""
    return type(module).__module__.partition(".")[0] in ("torch", "transformers")
