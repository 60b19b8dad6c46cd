"""SMART: the output should hardly change under the change of the word embeddings that moves it most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from dpstune.methods.base import TWIN_TOKENS, Method, MethodConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class SmartConfig(MethodConfig):
    """Settings of SMART (Jiang et al. 2020, arXiv 1911.03437).

    Attributes:
        lambda_: Weight of the divergence, 0 or more. The paper tries 1, 3 and 5.
        sigma: Standard deviation of the normal noise that the search starts from, above 0: there the divergence has no
            slope.
        steps: Steps of the search, 1 or more.
        eta: How far a step moves the largest element of an example's perturbation, above 0.
        epsilon: What no element of a perturbation may exceed, above 0.
    """

    name: Literal["smart"] = "smart"
    lambda_: Annotated[float, Field(ge=0.0, alias="lambda")] = 1.0
    sigma: Annotated[float, Field(gt=0.0)] = 1e-5
    steps: Annotated[int, Field(ge=1)] = 1
    eta: Annotated[float, Field(gt=0.0)] = 1e-3
    epsilon: Annotated[float, Field(gt=0.0)] = 1e-5


class Smart(Method[SmartConfig]):
    """Smoothness-inducing adversarial regularisation.

    Let x be the word embeddings of a micro-batch, f the model and D the symmetric divergence KL(a, b) + KL(b, a),
    averaged over the batch. A perturbation d starts from normal noise of standard deviation sigma; each of ``steps``
    steps, with the gradient g of D(f(x + d), f(x)) by d, makes it

        d = clip(d + eta * g / max|g|, -epsilon, epsilon),

    with the maximum over an example. Loss = CE(f(x)) + lambda * D(f(x + d), f(x)). Both outputs have a gradient, also
    that of the word embeddings; d is a constant. Every forward pass draws the model's dropout. For
    regression CE is a squared error and D the mean squared difference; where an example may have several labels, D is
    the symmetric divergence of each label's yes and no, averaged over labels. BART embeds words for its encoder and for
    its decoder; each has a d of its own.

    Of SMART this is the regulariser. Bregman proximal point optimisation (section 3.2) is left out: it would keep a
    second copy of all weights and compute one more forward pass.

    Source: Jiang et al. 2020, section 3.1 and Algorithm 1, which moves d by eta * g. At so small a d the divergence has
    almost no slope, so g is divided by its largest element. The authors' code, namisan/mt-dnn, divides d + eta * g and
    clips nothing: docs/semantics.md has the difference.

    >>> from dpstune import build_method
    >>> build_method({"name": "smart", "lambda": 3, "steps": 2}).config.epsilon
    1e-05
    """

    config_class = SmartConfig
    most_tokens = TWIN_TOKENS
    loss_takes_gradients = True

    def acquire(self, model: nn.Module) -> None:
        """Register a hook on the word embeddings, which adds the perturbation.

        Raises:
            RequestError: The model has no word embeddings.
        """
        from dpstune.models.structure import word_embeddings

        embeddings = word_embeddings(model)
        self._visit: Callable[[Tensor], Tensor | None] | None = None
        self._handles = [module.register_forward_hook(self._pass_on) for module in embeddings]

    def _pass_on(self, module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor | None:
        return None if self._visit is None else self._visit(embedded)

    @contextmanager
    def _visiting(self, visit: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """Have ``visit`` see, and perhaps replace, what the word embeddings give."""
        self._visit = visit
        try:
            yield
        finally:
            self._visit = None

    def _perturbed(self, perturbations: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Have a forward pass add the perturbations, in the order in which it embeds."""
        left = iter(perturbations)
        return self._visiting(lambda embedded: (embedded + next(left)).to(embedded.dtype))

    def loss(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the clean loss plus lambda times the divergence of the two outputs, averaged over the batch."""
        from dpstune.methods.twin import (
            clean_logits,
            features_of,
            has_several_labels,
            logits_of,
            note_problem_type,
            symmetric_divergence,
            task_loss,
        )

        labels, features = batch["labels"], features_of(batch)
        embedded: list[Tensor] = []
        with self._visiting(lambda words: embedded.append(words.detach())):
            clean = clean_logits(model, features)
        note_problem_type(model, clean, labels)
        several = has_several_labels(model, clean, labels)
        found = self._search(model, features, clean.detach(), embedded, several)
        with self._perturbed(found):
            adversarial = logits_of(model, features)
        divergence = symmetric_divergence(adversarial, clean, several=several)
        return task_loss(clean, labels, self.criterion, several=several) + self.config.lambda_ * divergence

    def _search(
        self, model: nn.Module, features: Mapping[str, Tensor], clean: Tensor, embedded: list[Tensor], several: bool
    ) -> list[Tensor]:
        """Return the perturbations, in float32 or in the embeddings' precision where that is higher.

        Args:
            model: The model, wrapped or not.
            features: Its keyword arguments.
            clean: Logits without a perturbation, [B, labels].
            embedded: What the word embeddings gave for them, each [B, tokens, width].
            several: Whether an example may have several labels.
        """
        import torch

        from dpstune.methods.twin import at_least_float32, logits_of, symmetric_divergence, without_wrapper

        eta, epsilon = self.config.eta, self.config.epsilon
        found = [torch.empty_like(at_least_float32(words)).normal_(0.0, self.config.sigma) for words in embedded]
        for _ in range(self.config.steps):
            for perturbation in found:
                perturbation.requires_grad_()
            with self._perturbed(found):
                logits = logits_of(without_wrapper(model), features)
            # An example's gradient is divided by its largest element in the end. Divided already at the logits, it
            # keeps its direction, and half precision does not round it to 0.
            moved = logits.detach().requires_grad_()
            (slope,) = torch.autograd.grad(symmetric_divergence(moved, clean, several=several), moved)
            gradients = torch.autograd.grad(logits, found, _by_largest(slope))
            found = [
                (perturbation.detach() + eta * _by_largest(gradient)).clamp_(-epsilon, epsilon)
                for perturbation, gradient in zip(found, gradients, strict=True)
            ]
        return found

    def release(self) -> None:
        """Remove the hook that adds the perturbation."""
        for handle in self._handles:
            handle.remove()


def _by_largest(gradient: Tensor) -> Tensor:
    """Divide each example's gradient by its largest element; one of 0 stays 0, one that is not finite becomes 0.

    Args:
        gradient: [B, ...].
    """
    import torch

    largest = gradient.flatten(1).abs().amax(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    largest = largest.view(-1, *[1] * (gradient.ndim - 1))
    return torch.where(largest.isfinite(), gradient / largest, 0.0)
