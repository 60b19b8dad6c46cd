"""How step time and memory grow with batch size, length and model, vanilla and dps-dense in turn.

Batch 8 to 64 at length 128, length 64 to 256 at batch 16, MiniLM; BERT-large where there is a GPU, or with --large.

    python benchmarks/scaling.py [--steps N] [--large]          writes results/scaling.json
"""

import argparse

from common import save

SIZES = [(8, 128), (16, 128), (32, 128), (64, 128), (16, 64), (16, 256)]


def main():
    import torch

    from dpstune.studies.profile.profile import ProfileRequest, profile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--large", action="store_true")
    asked = parser.parse_args()
    recipes = ["minilm-rte"] + (["bert-rte"] if asked.large or torch.cuda.is_available() else [])
    rows = []
    for recipe in recipes:
        for batch_size, length in SIZES:
            request = ProfileRequest(
                recipe, ("dps-dense",), (batch_size,), asked.steps, overrides=(f"data.max_length={length}",)
            )
            (cost,) = profile(request, print)["costs"]
            rows.append({"recipe": recipe, "length": length, **cost})
    save("scaling", {"rows": rows})


if __name__ == "__main__":
    main()
