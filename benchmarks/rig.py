"""What the stages of gpu.py are built from: architectures, loops on generated inputs, and the record of a stage."""

import importlib.util
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from common import new_loop

# Real classes with random weights; what a family calls otherwise stands in OWN_KEYS.
SHAPES = {
    "tiny": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32},
    "small": {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512},
    "minilm": {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
}
WORDS = {"tiny": 100, "small": 2000, "minilm": 30522}
FAMILIES = ("bert", "roberta", "electra", "bart", "deberta")
PRECISIONS = ("fp16", "bf16")


def methods():
    """Return the names of the methods whose steps change the model and whose libraries are here."""
    from dpstune.methods import REGISTRY, method_class

    here = [name for name in REGISTRY if name != "lora" or importlib.util.find_spec("peft") is not None]
    return [name for name in here if method_class(name).learns_by_steps]


class Stage:
    """One stage under way: how long it may take, and what it has found so far.

    Args:
        part: The file that holds what was found; written anew with each finding, since a stage may be cut off.
        seconds: How long it may take; it should stop itself before.
        rehearse: Whether it runs with tiny models, to see that it runs.
        asked: What the command line said besides.
    """

    def __init__(self, part, seconds, rehearse, **asked):
        self.found, self.rehearse, self.asked = {}, rehearse, asked
        self.folder = Path(tempfile.mkdtemp(prefix="dpstune-gpu-"))
        self._part, self._end = Path(part), time.monotonic() + seconds
        self._rest = {}

    @property
    def left(self):
        """Seconds left."""
        return self._end - time.monotonic()

    def note(self, **findings):
        """Add findings, and write all of them."""
        self.found |= findings
        self.write()

    def write(self, **rest):
        from dpstune.common.writing import write_json

        self._rest |= rest
        write_json(self._part, {"found": self.found, **self._rest})

    def say(self, line):
        print(f"  {line}", flush=True)

    def shape(self, name):
        """Return the name of a shape: the one asked for, or in a rehearsal the tiny one."""
        return "tiny" if self.rehearse else name

    def write_recipe(self, shape, *, family="bert", batch_size=16, length=128, steps=8):
        """Write a recipe for a model of one of ``SHAPES``, or for a hub id whose architecture ships with dpstune."""
        if self.rehearse:
            batch_size, length = min(batch_size, 4), min(length, 16)
            shape = "tiny"
        model = shape if shape not in SHAPES else self._write_model(shape, family)
        path = self.folder / f"{Path(model).name}-{batch_size}-{length}-{steps}.yaml"
        path.write_text(
            f"model: {{name: {model}, init: random}}\ntask: rte\ndata: {{max_length: {length}}}\n"
            f"training: {{batch_size: {batch_size}, steps: {steps}, warmup_steps: 0}}\n"
        )
        return str(path)

    def _write_model(self, shape, family):
        folder = self.folder / f"{shape}-{family}"
        if not folder.exists():
            new_config(shape, family).save_pretrained(folder)
        return folder

    def load(self, recipe, method, precision="auto", *overrides):
        """Load a recipe with one of the methods, both stages of DPS in equal parts."""
        from dpstune.recipe.recipe import load_recipe

        own = ["method.update_ratio=0.5"] if method.startswith("dps") else []
        own += ["method.layers=1"] if method in ("reinit", "top-layers") else []
        return load_recipe(recipe, method=method, overrides=[f"training.precision={precision}", *own, *overrides])

    def new_loop(self, loaded, inputs=None, folder=None):
        """Put a run together on generated inputs; a folder is where it finds and leaves checkpoints."""
        from dpstune.studies.profile.generated import GeneratedInputs

        place = folder or tempfile.mkdtemp(dir=self.folder)
        return new_loop(loaded, place, inputs or GeneratedInputs(steps=8, padded=True))


@contextmanager
def built_on_the_device():
    """Draw random weights on the GPU inside the block: drawing BERT-large's on the host takes seconds a model."""
    import torch

    from dpstune.models import loading

    load = loading.load_classifier

    def load_on_the_device(*args, **kwargs):
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            return load(*args, **kwargs)

    loading.load_classifier = load_on_the_device
    try:
        yield
    finally:
        loading.load_classifier = load


def new_config(shape, family):
    """Return the configuration of a family's real class in one of ``SHAPES``."""
    from transformers import AutoConfig

    size = SHAPES[shape]
    own = {
        "electra": {"embedding_size": size["hidden_size"]},
        "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
        "bart": {
            "d_model": size["hidden_size"],
            **{f"{part}_layers": size["num_hidden_layers"] for part in ("encoder", "decoder")},
            **{f"{part}_attention_heads": size["num_attention_heads"] for part in ("encoder", "decoder")},
            **{f"{part}_ffn_dim": size["intermediate_size"] for part in ("encoder", "decoder")},
            "decoder_start_token_id": 2,
        },
    }
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    words, positions = WORDS[shape], 520
    return AutoConfig.for_model(
        family, **{**size, "vocab_size": words, "max_position_embeddings": positions, **special, **own.get(family, {})}
    )


def precisions():
    """Return the half precisions to try: on a GPU those it has, on a CPU those it can emulate."""
    from dpstune.device.hardware import choose_precision, device_type
    from dpstune.errors import RequestError

    found = []
    for precision in PRECISIONS:
        try:
            found.append(choose_precision(precision, device_type()))
        except RequestError:
            continue
    return found


def take_steps(loop, last):
    """Train up to step ``last``."""
    while loop.state.step < last:
        loop.optimizer_step(loop.state.step + 1)


def state_of(loop):
    """Return copies of all tensors an exact resume needs: weights, moments, the method's own."""
    return {
        "weights": clone(dict(loop.model.state_dict())),
        "moments": clone(loop.optimizer.state_dict()["state"]),
        "method": clone(loop.method.state_dict()),
        "scaler": None if loop.accelerator.scaler is None else loop.accelerator.scaler.state_dict(),
    }


def clone(tree):
    import torch

    if isinstance(tree, dict):
        return {key: clone(value) for key, value in tree.items()}
    return tree.clone() if isinstance(tree, torch.Tensor) else tree


def different(first, second):
    """Return how many numbers of two equally built trees are not the same."""
    import torch

    if isinstance(first, dict):
        assert first.keys() == second.keys()
        return sum(different(first[key], second[key]) for key in first)
    if isinstance(first, torch.Tensor):
        return int((first != second).sum())
    return int(first != second)


def flat_weights(loop):
    """Return all weights as one float32 vector on the CPU."""
    import torch

    return torch.cat([parameter.detach().float().cpu().flatten() for parameter in loop.model.parameters()])


def first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:500]


def free_memory():
    """Give a GPU's memory back that models hold which nobody needs any more."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def child_environment(root):
    """Return the environment of a process that shall find dpstune, which need not be installed."""
    path = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
