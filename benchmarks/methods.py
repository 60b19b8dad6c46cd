"""What each method costs beside vanilla, time and memory: `dpstune profile` on what is there.

Every method with MiniLM at 16 x 128 (time and memory) and 32 x 128 (memory), top-layers with the layers that
docs/comparison.md tries, too; with --large those of the paper's Table 3
with BERT-large at 16 x 128 (memory). On a CPU; on a GPU gpu.py measures it.

    python benchmarks/methods.py [--steps N] [--large]          writes results/methods-*.json
"""

import argparse

from common import save


def measure(name, recipe, methods, batch_sizes, steps):
    from dpstune.studies.profile.profile import ProfileRequest, profile

    request = ProfileRequest(recipe, tuple(methods), batch_sizes, steps)
    save(f"methods-{name}", profile(request, print))


def main():
    import torch

    from dpstune.methods import REGISTRY
    from dpstune.studies.profile.profile import METHODS_OF_TABLE_3

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--large", action="store_true", help="BERT-large on a CPU: 18 GiB and half an hour")
    asked = parser.parse_args()
    if torch.cuda.is_available():
        parser.error("here is a GPU: benchmarks/gpu.py measures what methods cost there")
    measure("minilm-cpu", "minilm-rte", REGISTRY, (16,), asked.steps)
    measure("minilm-cpu-memory", "minilm-rte", REGISTRY, (16, 32), 0)
    measure("minilm-layers-memory", "minilm-rte", ("top-layers:layers=2", "top-layers:layers=4"), (16,), 0)
    if asked.large:
        measure("bert-large-cpu-memory", "bert-rte", METHODS_OF_TABLE_3, (16,), 0)


if __name__ == "__main__":
    main()
