"""What a training step asks of a GPU, counted without one: operations, kernel launches, waits for it, memory.

BERT-large, 16 x 128 tokens, fp16 autocast with loss scaling. The step is taken on fake tensors: they know shape, dtype
and device ("cuda"), hold no numbers, and refuse an operation whose tensors lie on two devices. Every method is counted
in its phases, beside vanilla with the same dropout; not those whose steps are vanilla's, or a part of them.

    python benchmarks/launches.py          writes results/launches.json

Operations are what reaches torch's dispatcher. Launches leave out views and allocations, count a ``_foreach_`` or
fused operation as the kernels that torch cuts its lists into, and any other operation as one kernel: a lower bound,
since some (an embedding's backward, top-k) take several. Where torch was built without CUDA, a C++ compiler is needed:
see simulated_gpu.cpp.
"""

import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dpstune.methods import BASELINE, REGISTRY, build_method
from dpstune.studies.profile.memory_meter import TensorMeter, tensor_bytes

BATCH_SIZES, LENGTH = (16, 32), 128
STEPS = 20  # of the run that a method is attached for; with the update_ratio below, Stage II opens at step 11
AS_VANILLA = ("reinit", "linear-probe", "lp-ft", "bitfit", "top-layers", "noisytune", "lora")
METHODS = [name for name in REGISTRY if name not in AS_VANILLA]
PHASES = {"Stage I": 2, "opening of Stage II": 11, "Stage II": 12}

CUDA_WITHOUT_GPU = "this torch is built for CUDA and there is no GPU: a CPU build, or a GPU, please"

aten = torch.ops.aten
ALLOCATIONS = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_unsafe_view", "lift_fresh"}
READINGS = {"_local_scalar_dense", "is_nonzero", "equal"}  # give the host a number of the device
WAITS = READINGS | {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
# Of the list of torch.use_deterministic_algorithms, what a method might be written with.
UNSTEADY = {"kthvalue", "median", "put_", "histc", "bincount", "cumsum", "scatter_reduce", "index_reduce", "nll_loss2d"}
IN_PLACE_DRAWS = {"uniform_", "normal_", "bernoulli_", "random_", "exponential_"}

# aten/src/ATen/native/cuda/MultiTensorApply.cuh: elements of a chunk, chunks of a launch, tensors of a launch by the
# number of lists. Newer drivers take more of them in a launch.
CHUNK, CHUNKS = 65536, 320
TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}


class Launches(TorchDispatchMode):
    """Counts, inside a ``with`` block, what a step on a simulated GPU asks of it.

    Attributes:
        operations: How often each operation was dispatched, by name.
        kernels: The launches they make, by name.
        waits: The operations for which the host waits until the device is done, each with the part of the step.
        unsteady: Those that have no deterministic kernel, or a slow one, on a GPU; a CPU has one.
        part: The part of the step that is under way.
    """

    def __init__(self):
        super().__init__()
        self.operations, self.kernels = Counter(), Counter()
        self.waits, self.unsteady = [], []
        self.part = ""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if func.namespace == "prim":  # a question about a tensor
            return func(*args, **kwargs)
        on_gpu = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.is_cuda]
        result = simulate(func, name, args, kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor) and leaf.is_cuda]
        if on_gpu or made:
            self.operations[name] += 1
            self.kernels[name] += kernels(func, name, args, result)
            if name in UNSTEADY:
                self.unsteady.append((self.part, name))
            if waits(name, args, kwargs, result):
                self.waits.append((self.part, name))
        return result


def simulate(func, name, args, kwargs):
    """Call an operation on fake tensors; what needs a number of the device gets a 0, what draws draws nothing."""
    if name in READINGS and args[0].is_cuda:
        return 0
    if name in IN_PLACE_DRAWS:
        return args[0]
    if name == "nonzero":  # as where all are
        return args[0].new_empty(args[0].numel(), args[0].ndim, dtype=torch.long)
    if name == "unique_consecutive":
        return tuple(args[0].new_empty(1) for _ in range(3))
    if by_mask(name, args):  # BART's end tokens: one an example
        mask = args[1][0]
        return args[0].new_empty(len(mask), *args[0].shape[mask.ndim :]) if name == "index" else args[0]
    if name == "rand":
        return aten.empty.memory_format(args[0], dtype=kwargs.get("dtype"), device=kwargs["device"])
    return func(*args, **kwargs)


def by_mask(name, args):
    """Tell whether an operation indexes by a bool tensor, whose true elements the host must know the number of."""
    return name in ("index", "index_put", "_unsafe_index_put") and getattr(args[1][0], "dtype", None) == torch.bool


def kernels(func, name, args, result):
    """Return how many kernels an operation launches."""
    if func.is_view or name in ALLOCATIONS:
        return 0
    if name.startswith(("_foreach", "_fused", "_amp_foreach")):
        return list_kernels(name, args, result)
    return 1


def list_kernels(name, args, result):
    """Return into how many launches torch cuts an operation over lists of tensors."""
    lists = [each for each in args if isinstance(each, (list, tuple)) and each and isinstance(each[0], torch.Tensor)]
    if name == "_fused_adamw_":
        lists = lists[:4]
        steps = 1  # the list of step counts, one more launch
    elif name == "_foreach_norm":
        steps = math.ceil(len(lists[0]) / TENSORS[1])  # what sums up the chunks
    else:
        steps = 0
        if isinstance(result, (list, tuple)):
            lists = [*lists, result]
    if not alike(lists, any_dtype=name == "_foreach_copy_"):
        return len(lists[0])  # torch falls back on an operation a tensor
    launches = chunks = tensors = 0
    for tensor in lists[0]:
        tensors += 1
        left = math.ceil(tensor.numel() / CHUNK)
        while left:
            taken = min(left, CHUNKS - chunks)
            left, chunks = left - taken, chunks + taken
            if chunks == CHUNKS or (not left and tensors == TENSORS[len(lists)]):
                launches, chunks, tensors = launches + 1, 0, 1 if left else 0
    return launches + bool(chunks) + steps


def alike(lists, any_dtype):
    """Tell whether the tensors at each place of the lists are of one shape and layout, and all of one dtype."""
    if not any_dtype and len({tensor.dtype for each in lists for tensor in each}) > 1:
        return False
    return all(len({(t.shape, t.stride()) for t in row}) == 1 for row in zip(*lists, strict=True))


def waits(name, args, kwargs, result):
    """Tell whether the host waits for the device."""
    if name in WAITS or by_mask(name, args):
        return True
    source, target = {"_to_copy": (args[0], result), "copy_": (args[-1], args[0])}.get(name, (None, None))
    if not isinstance(source, torch.Tensor) or source.is_cuda == target.is_cuda:
        return False
    pinned = getattr(source, "pinned", False)
    return source.is_cuda or not (pinned and kwargs.get("non_blocking", False))


def efficient_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    """Attend as torch does on a GPU where there is a mask; for fake tensors it would choose no fused kernel."""
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask.logical_not(), -math.inf)
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    attended = aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
    )
    return attended[0]


@contextmanager
def simulated_gpu():
    """Make "cuda" tensors fake ones inside a ``with`` block, on a machine that need not have a GPU."""

    def pin(tensor, *_):
        tensor.pinned = True
        return tensor

    class Generator:
        def __new__(cls, device):
            return torch._C.Generator("cpu")

    mode = FakeTensorMode()
    with ExitStack() as stack:
        for patched in (
            patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
            patch("torch.nn.functional.scaled_dot_product_attention", efficient_attention),
            patch(
                "torch.utils._foreach_utils._foreach_supported_types", [torch.Tensor, torch.nn.Parameter, FakeTensor]
            ),
            patch("torch._subclasses.fake_tensor.init_gpu_context", lambda device: None),
            patch.object(torch.Tensor, "pin_memory", pin),
            patch.object(torch, "Generator", Generator),
        ):
            stack.enter_context(patched)
        stack.enter_context(mode)
        yield


class Step:
    """A classifier on the simulated GPU, and a training step in the engine's order; used inside ``simulated_gpu``.

    Args:
        config: The model's configuration.
        settings: The method's settings.
        dropout: The model's dropout; None takes the method's, or the model's own.
        shape: Examples and tokens of a step.
        metered: Whether memory is counted too, which takes as long again.

    Attributes:
        peak: The most bytes that tensors took in a step so far.
        peak_of_prepare: The same of ``Method.prepare``.
        prepared: What ``Method.prepare`` asked for, with one step of one batch to look at.
    """

    def __init__(self, config, settings, dropout=None, shape=(16, LENGTH), metered=True):
        from accelerate.utils import convert_outputs_to_fp32
        from transformers import AutoModelForSequenceClassification

        from dpstune.models.loading import set_dropout

        self.method = build_method(settings)
        self.dropout = self.method.dropout(STEPS) if dropout is None else dropout
        with Launches(), torch.device("cuda"):  # the counter, for what it simulates
            self.model = AutoModelForSequenceClassification.from_config(config).train()
            self.batch = {
                "input_ids": torch.zeros(shape, dtype=torch.long),
                "attention_mask": torch.ones(shape, dtype=torch.long),
                "labels": torch.zeros(shape[0], dtype=torch.long),
            }
        if self.dropout is not None:
            set_dropout(self.model, self.dropout)
        with Launches():
            self.method.attach(self.model, total_steps=STEPS)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)
        self.metered, self.peak, self.peak_of_prepare = metered, 0, 0
        held = self.held()
        with self.meter() as meter, Launches() as self.prepared:
            self.method.prepare(self.model, [[(self.batch, 1.0)]])
        self.peak_of_prepare = held + meter.peak
        autocast = torch.autocast("cuda", dtype=torch.float16)
        self.model.forward = convert_outputs_to_fp32(autocast(self.model.forward))
        self.scaler = torch.amp.GradScaler("cuda")

    def meter(self):
        return TensorMeter() if self.metered else nullcontext(SimpleNamespace(peak=0))

    def held(self):
        """Return the bytes held between steps: weights, optimizer, method."""
        state = [value for each in self.optimizer.state.values() for value in each.values()]
        tensors = [*self.model.parameters(), *self.model.buffers(), *state]
        return tensor_bytes(tensors) + self.method.held_bytes()

    def take(self, number):
        """Take step ``number`` and return what it asked for."""
        held = self.held()
        with self.meter() as meter, Launches() as counted:
            self.method.step = number
            for done in range(self.method.rounds):
                if done:
                    counted.part = "after_round"
                    self.method.after_round(done)
                    self.optimizer.zero_grad()
                counted.part = "forward"
                loss = self.method.loss(self.model, self.batch)
                counted.part = "backward"
                self.scaler.scale(loss).backward()
            counted.part = "scaler"
            self.scaler.unscale_(self.optimizer)
            counted.part = "before_clip"
            self.method.before_clip()
            counted.part = "clipping"
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            counted.part = "before_update"
            self.method.before_update()
            counted.part = "scaler"
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
            counted.part = "after_update"
            self.method.after_update()
        self.peak = max(self.peak, held + meter.peak)
        return counted


def settings_of(name):
    """Return a method's settings: half of the run in each stage of DPS."""
    return {"name": name, "update_ratio": 0.5} if name.startswith("dps-") else {"name": name}


def phases_of(name):
    """Return the steps to look at, by phase."""
    return PHASES if name.startswith("dps-") else {"every step": 2}


def count(config, shape, names, metered=True):
    """Return a row for each method and phase, and each method's peak bytes; vanilla is counted with each dropout.

    Args:
        config: Makes the model's configuration.
        shape: Examples and tokens of a step.
        names: The methods.
        metered: Whether peaks are counted.
    """
    vanilla = {}
    rows, peaks = [], {}
    for name in names:
        with simulated_gpu():
            side = Step(config(), settings_of(name), shape=shape, metered=metered)
            if side.dropout not in vanilla:
                base = Step(config(), {"name": BASELINE}, dropout=side.dropout, shape=shape, metered=False)
                base.take(1)  # makes the optimizer's state
                vanilla[side.dropout] = base.take(2)
            base = vanilla[side.dropout]
            side.take(1)
            for phase, number in phases_of(name).items():
                counted = side.take(number)
                rows.append(
                    {
                        "method": name,
                        "phase": phase,
                        "operations": counted.operations.total(),
                        "vanilla_operations": base.operations.total(),
                        "launches": counted.kernels.total(),
                        "vanilla_launches": base.kernels.total(),
                        "waits": counted.waits,
                    }
                )
            peaks[name] = {"step": side.peak, "prepare": side.peak_of_prepare, "waits": side.prepared.waits}
    return rows, peaks


def environment(folder):
    """Return the environment of a process that simulates a GPU, with what torch lacks compiled into ``folder``.

    Raises:
        FileNotFoundError: There is no C++ compiler.
        CalledProcessError: This torch is not one that the file fits.
        RuntimeError: This torch is built for CUDA, and there is no GPU: it can neither use one nor be told of one.
    """
    if torch.version.cuda is not None:
        if not torch.cuda.is_available():
            raise RuntimeError(CUDA_WITHOUT_GPU)
        return dict(os.environ)
    root, library = Path(torch.__file__).parent, Path(folder) / "simulated_gpu.so"
    source = Path(__file__).with_name("simulated_gpu.cpp")
    places = [f"-I{root}/include", f"-L{root}/lib", f"-Wl,-rpath,{root}/lib"]
    options = ["-shared", "-fPIC", "-std=c++20", "-O0", *places, "-lc10", "-ltorch_cpu"]
    subprocess.run([os.environ.get("CXX", "g++"), str(source), "-o", str(library), *options], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def bert_large():
    from transformers import AutoConfig

    from dpstune.models import loading

    return AutoConfig.from_pretrained(Path(loading.__file__).parent / "architectures" / "bert-large-cased.json")


def child():
    """Count, and write the results."""
    from common import save

    rows, peaks = count(bert_large, (BATCH_SIZES[0], LENGTH), METHODS)
    for row in rows:
        print(row)
    _, larger = count(bert_large, (BATCH_SIZES[1], LENGTH), METHODS)
    sizes = {str(BATCH_SIZES[0]): peaks, str(BATCH_SIZES[1]): larger}
    save("launches", {"model": "bert-large-cased", "length": LENGTH, "rows": rows, "peaks": sizes})


def main():
    if os.environ.get("LD_PRELOAD", "").endswith("simulated_gpu.so") or torch.cuda.is_available():
        child()
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            simulated = environment(folder)
        except RuntimeError as error:
            sys.exit(str(error))
        subprocess.run([sys.executable, __file__], check=True, env=simulated)


if __name__ == "__main__":
    main()
