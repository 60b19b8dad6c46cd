"""Which operations have no deterministic kernel: each method on BERT, and vanilla on the other families.

Four steps each: both of Stage I, the one that opens Stage II, and the last.
"""

import warnings

from rig import FAMILIES, first_line, free_memory, methods, take_steps

STEPS = 4


def run(stage):
    import torch

    rows = []
    plan = [("bert", method) for method in methods()] + [(family, "vanilla") for family in FAMILIES[1:]]
    for family, method in plan:
        recipe = stage.write_recipe("small", family=family, length=64, steps=STEPS)
        row = {"family": family, "method": method, "raised": None, "raised_at_step": None, "warned": []}
        loop = stage.new_loop(stage.load(recipe, method))
        row["settled"] = loop.determinism
        torch.use_deterministic_algorithms(True)
        try:
            take_steps(loop, STEPS)
        except RuntimeError as error:
            row |= {"raised": first_line(error), "raised_at_step": loop.state.step + 1}
            row["warned"] = warnings_of(stage, recipe, method)
        rows.append(row)
        stage.note(rows=rows)
        stage.say(f"{family}, {method}: {row['raised'] or 'nothing raised'}")
        del loop
        free_memory()


def warnings_of(stage, recipe, method):
    """Take the same steps where torch only warns; return what it says, once each."""
    import torch

    loop = stage.new_loop(stage.load(recipe, method))
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        take_steps(loop, STEPS)
    return sorted({first_line(each.message) for each in caught if "determinis" in str(each.message)})
