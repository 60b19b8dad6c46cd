"""R3F: the output should hardly change when a little noise is added to the word embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from dpstune.methods.base import TWIN_TOKENS, Method, MethodConfig

if TYPE_CHECKING:
    import torch
    from torch import nn


class R3FConfig(MethodConfig):
    """Settings of R3F (Aghajanyan et al. 2021, arXiv 2008.03156).

    Attributes:
        noise: Distribution of the noise.
        sigma: Its scale, above 0: the standard deviation, or half the width of the uniform interval.
        lambda_: Weight of the divergence, 0 or more. The grid is 0.1, 0.5, 1, 5.
        detach: Whether the noisy forward pass takes the word embeddings as constants, as the authors' code does. If
            not, they receive a gradient through it, too.
    """

    name: Literal["r3f"] = "r3f"
    noise: Literal["normal", "uniform"] = "normal"
    sigma: Annotated[float, Field(gt=0.0)] = 1e-5
    lambda_: Annotated[float, Field(ge=0.0, alias="lambda")] = 1.0
    detach: bool = True


class R3F(Method[R3FConfig]):
    """Robust representations through regularised fine-tuning.

    Each micro-batch goes through the model twice, the second time with noise of scale sigma on the word embeddings.
    Loss = CE(clean) + lambda * (KL(noisy, clean) + KL(clean, noisy)), summed over classes, averaged over the batch. For
    regression CE is a squared error, and the mean squared difference of the two outputs replaces the KLs. Both forward
    passes draw the model's dropout, and both outputs have a gradient. Unless ``detach`` is false, the word embeddings
    receive theirs through the clean forward pass alone.

    Source: Aghajanyan et al. 2021, section 2.2, equations 4 to 6; the gradient of the word embeddings as in fairseq's
    examples/rxf/rxf_src/sentence_prediction_r3f.py.

    >>> from dpstune import build_method
    >>> build_method({"name": "r3f", "lambda": 5, "noise": "uniform"}).config.lambda_
    5.0
    """

    config_class = R3FConfig
    most_tokens = TWIN_TOKENS
    serves_several_labels = False  # its divergence compares one distribution an example

    def acquire(self, model: nn.Module) -> None:
        """Register a hook on the word embeddings, which adds the noise.

        Raises:
            RequestError: The model has no word embeddings.
        """
        from dpstune.models.structure import word_embeddings

        embeddings = word_embeddings(model)
        self._first_noisy: int | None = None
        self._handles = [module.register_forward_hook(self._add_noise) for module in embeddings]

    def _add_noise(self, module: nn.Module, inputs: Any, embedded: torch.Tensor) -> torch.Tensor | None:
        """Add noise to the examples of the noisy forward pass."""
        import torch

        if self._first_noisy is None:
            return None
        clean, noisy = embedded[: self._first_noisy], embedded[self._first_noisy :]
        noise = torch.empty_like(noisy)
        if self.config.noise == "normal":
            noise.normal_(0.0, self.config.sigma)
        else:
            noise.uniform_(-self.config.sigma, self.config.sigma)
        if self.config.detach:
            noisy = noisy.detach()
        # Even without rows the clean part keeps the embeddings in the graph for DistributedDataParallel.
        return torch.cat([clean, noisy + noise])

    @contextmanager
    def _noisy_from(self, row: int) -> Iterator[None]:
        self._first_noisy = row
        try:
            yield
        finally:
            self._first_noisy = None

    def loss(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the clean loss plus lambda times the divergence of the two outputs, averaged over the batch."""
        from dpstune.methods.twin import (
            note_problem_type,
            refuse_several_labels,
            symmetric_divergence,
            task_loss,
            twin_logits,
        )

        labels = batch["labels"]
        clean, noisy = twin_logits(model, batch, self._noisy_from)
        refuse_several_labels(model, clean, labels)
        note_problem_type(model, clean, labels)
        return task_loss(clean, labels, self.criterion) + self.config.lambda_ * symmetric_divergence(noisy, clean)

    def release(self) -> None:
        """Remove the hook that adds the noise."""
        for handle in self._handles:
            handle.remove()
