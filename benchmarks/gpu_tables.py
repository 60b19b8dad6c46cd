"""The tables of what was measured on a GPU, from results/gpu.json; without it each row says that there was none."""

from dpstune.errors import counted

GB = 1e9  # the stricter reading of the paper's "G"
NOT_MEASURED = "not measured: no GPU was to be had"
FACTOR_GOALS = {"dps-dense": 1.03, "dps-mix": 1.06, "mixout": 1.06}
OTHERS = ("roberta", "electra", "bart", "deberta")


def markdown(columns, rows):
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def measured_on(result):
    about, versions = result["about"], result["about"]["packages"]
    load = "/".join(f"{value:g}" for value in about["load_average"])
    where = about["device"] if about["device"] != "cpu" else f"{about['processor']}, {about['cpus']} cores"
    threads = counted(about["threads"], "thread")
    return (
        f"\n{where}, {threads}, {about['precision']}, load average {load}; torch {versions['torch']}, "
        f"transformers {versions['transformers']}; {about['date']}.\n"
    )


def machines(result, *stages):
    """Say on which machines the stages ran, a line each; what a later run measured again may be of another."""
    told = {}
    for name, stage in result["stages"].items():
        about = stage.get("about")
        if about is not None and (name in stages or not stages):
            versions = about["packages"]
            line = (
                f"{about['device']}, {counted(about['threads'], 'thread')}; torch {versions['torch']}, "
                f"transformers {versions['transformers']}; {about['date']}"
            )
            told.setdefault(line, []).append(name)
    return "".join(f"\n{line} ({', '.join(names)}).\n" for line, names in told.items())


def spread(ratio, quartiles):
    return f"{ratio:.3f} ({quartiles[0]:.3f} to {quartiles[1]:.3f})"


class MissingError(Exception):
    """A stage did not come to what a row asks for."""


class Found:
    """What the stages found; a row asks for it by a function.

    Args:
        result: The content of gpu.json, None where there is none.
    """

    def __init__(self, result):
        self.result = result

    def cell(self, stage, show):
        """Return ``show`` of a stage's findings, or why there is nothing to show.

        Args:
            stage: The stage's name.
            show: Takes the findings; raises KeyError or MissingError where they lack what it wants.
        """
        if self.result is None:
            return NOT_MEASURED
        outcome = self.result["stages"].get(stage, {"status": "not asked for", "found": {}})
        try:
            return show(outcome["found"])
        except (KeyError, MissingError):
            why = outcome.get("error") or outcome.get("reason") or outcome["status"]
            return f"not measured: {'not among what was found' if why == 'done' else why}".replace("|", "/")


def costs_of(found, model, size):
    """Return what was measured of a model at a batch size, by method."""
    return {
        row["method"]["name"]: row
        for row in found["rows"]
        if (row["model"], row["table_3_batch_size"]) == (model, size)
    }


def step_over_vanilla(model, method):
    def show(found):
        row = costs_of(found, model, 16)[method]
        return spread(row["ratio"], row["ratio_quartiles"])

    return show


def cells_below_the_paper(found):
    """Say in how many cells of Table 3 the peak is below the paper's, as allocated and as reserved."""
    paper = paper_table()
    rows = [(row, gb) for size, column in paper.items() for row, gb in pairs(costs_of(found, "bert", size), column)]
    if not rows:
        raise MissingError
    counts = [
        sum(None not in sizes and max(sizes) / GB < paper for sizes, paper in sizes_of)
        for sizes_of in (
            [((row["memory"]["peak"], row["memory"]["before_training"]), gb) for row, gb in rows],
            [((row["memory"]["reserved"],), gb) for row, gb in rows],
        )
    ]
    return f"{counts[0]} of {len(rows)} measured (as reserved: {counts[1]})"


def pairs(costs, column):
    return [(costs[method], gb) for method, gb in column.items() if method in costs]


def paper_table():
    from dpstune.report.profile_report import TABLE_3

    return TABLE_3


def numbers_that_differ(key):
    def show(found):
        return f"{sum(row[key] for row in found['rows'])} in {len(found['rows'])} pairs of runs"

    return show


def overflows(found):
    rows = [row["overflow"] for row in found["rows"] if "overflow" in row]
    if not rows:
        raise MissingError
    held = sum(not any(row["different"].values()) and row["halved_each_time"] and row["trains_on"] for row in rows)
    return f"{held} of {len(rows)}"


def beside_the_cpu(found):
    rows = [row["beside_the_cpu"] for row in found["rows"]]
    farthest = {
        precision: max(row["beside_the_cpu"]["apart"] for row in found["rows"] if row["precision"] == precision)
        for precision in sorted({row["precision"] for row in found["rows"]})
    }
    told = ", ".join(f"{precision} {apart:.3f}" for precision, apart in farthest.items())
    return f"{sum(row['within'] for row in rows)} of {len(rows)} (farthest: {told})"


def raised(found):
    rows = [f"{row['family']} {row['method']}: {row['raised']}" for row in found["rows"] if row["raised"]]
    return "; ".join(rows).replace("|", "/") or f"none in {len(found['rows'])} models and methods"


def over_trainer(kind):
    def show(found):
        row = found["over_trainer"][kind]
        return f"{row['median']:.2f}x ({row['quartiles'][0]:.2f} to {row['quartiles'][1]:.2f})"

    return show


def utilisation(found):
    if found["utilisation"] is None:
        return f"{found['flops_a_second'] / 1e12:.1f} TFLOP/s; the card's peak is not in the table"
    return f"{100 * found['utilisation']:.0f} % of {found['peak_flops_a_second'] / 1e12:.0f} TFLOP/s"


def price_of_the_same_bits(found):
    return "; ".join(
        f"{precision}: {spread(row['strict']['over_off']['median'], row['strict']['over_off']['quartiles'])}, "
        f"{row['strict']['different_on_repeat']} numbers differ (any kernels: {row['off']['different_on_repeat']})"
        for precision, row in found["rows"].items()
    )


def fp16_over_bf16(found):
    return spread(found["fp16_over_bf16"]["median"], found["fp16_over_bf16"]["quartiles"])


def selections(found):
    cells = [
        f"{name} {1000 * found['layers'] * row['seconds']['median']:.1f} ms"
        for name, row in found["one_layer"].items()
        if "seconds" in row
    ]
    return ", ".join(cells)


def kernels(found):
    counts = {name: found[name]["counts"]["kernels"] for name in ("vanilla", "dps-dense", "dps-mix")}
    if not counts["vanilla"]:
        raise MissingError  # a CPU has none
    over = [f"{name} {count / counts['vanilla']:.2f}x" for name, count in counts.items() if name != "vanilla"]
    return f"vanilla {counts['vanilla']:,}; {', '.join(over)}"


def waits(found):
    return ", ".join(
        f"{name} {sum(found[name]['waits_in_the_code'].values())}" for name in ("vanilla", "dps-dense", "dps-mix")
    )


def opening(method):
    def show(found):
        row = costs_of(found, "bert", 16)[method]
        return f"{row['opening_seconds'] / row['seconds']:.2f}x a step"

    return show


def runs_an_hour(found):
    return ", ".join(f"{row['workers']}: {row['runs_an_hour']:,.0f}" for row in found["rows"])


def compiled(found):
    return "; ".join(
        f"{method} {row['compiled_over_plain']['median']:.2f}x"
        if "compiled_over_plain" in row
        else f"{method}: {row['error']}"
        for method, row in found["rows"].items()
    ).replace("|", "/")


def accuracies(found):
    return "; ".join(
        f"{row['method']} {row['precision']} " + (f"{row['accuracy']:.3f}" if "accuracy" in row else row["error"])
        for row in found["rows"]
        if row.get("steps") == row.get("of")  # not cut off
    ).replace("|", "/")


def goals(result):
    """Return the table of goals that only a GPU can show."""
    cell = Found(result).cell
    rows = [
        (
            f"{method} step over vanilla, BERT-large, 16 x 128",
            f"<= {goal}",
            cell("table3", step_over_vanilla("bert", method)),
        )
        for method, goal in FACTOR_GOALS.items()
    ]
    rows += [
        ("vanilla against itself: the noise", "", cell("table3", step_over_vanilla("bert", "vanilla"))),
        ("peak memory below the paper's Table 3", "14 of 14 cells", cell("table3", cells_below_the_paper)),
        (
            "vanilla, examples a second over `Trainer`'s: its own padding and our precision",
            ">= 1.3x",
            cell("trainer", over_trainer("same")),
        ),
        (
            "the same, `Trainer` as run_glue.py has it: fp32, all padded to 128",
            ">= 1.3x",
            cell("trainer", over_trainer("usual")),
        ),
        (
            "numbers that differ after a resume, all methods in fp16 and bf16",
            "0",
            cell("methods", numbers_that_differ("different_on_resume")),
        ),
        ("numbers that differ in a second run", "0", cell("methods", numbers_that_differ("different_on_repeat"))),
        (
            "methods in which overflows in fp16 change the schedule and the scale alone",
            "all",
            cell("methods", overflows),
        ),
        ("weights beside a CPU's in fp32, within the tolerance", "all", cell("methods", beside_the_cpu)),
        ("operations without a deterministic kernel", "none", cell("strict", raised)),
        ("deterministic kernels over any, MiniLM's shape, padded", "", cell("padded", price_of_the_same_bits)),
        ("vanilla's step in fp16 over bf16, BERT-large, 16 x up to 128", "", cell("half", fp16_over_bf16)),
        ("choosing the subnetwork of BERT-large, by the ways there are", "", cell("selection", selections)),
        ("the step that opens Stage II: dps-dense", "", cell("table3", opening("dps-dense"))),
        ("the same: dps-mix", "", cell("table3", opening("dps-mix"))),
        ("kernels of a step, BERT-large", "", cell("trace", kernels)),
        ("waits for the device in a step", "0", cell("trace", waits)),
        ("model FLOPs utilisation of vanilla, BERT-large, 16 x up to 128", "", cell("trainer", utilisation)),
        ("runs of minilm-rte an hour, by processes that share the GPU", "", cell("sharing", runs_an_hour)),
        ("a compiled step over a plain one, MiniLM's shape", "", cell("compile", compiled)),
        ("MiniLM on RTE, accuracy", "", cell("minilm", accuracies)),
    ]
    rows += [
        (
            f"{method} step over vanilla, {model}, 16 x 128",
            f"<= {FACTOR_GOALS[method]}",
            cell("table3", step_over_vanilla(model, method)),
        )
        for model in OTHERS
        for method in ("dps-dense", "dps-mix")
    ]
    return markdown(["what", "goal", "found"], rows) + (machines(result) if result else "")


def table_3(result):
    """Return the paper's Table 3 beside what was measured."""
    found, rows = Found(result), []
    for size, column in paper_table().items():
        for method, paper in column.items():

            def show(found, size=size, method=method):
                row = costs_of(found, "bert", size)[method]
                memory, reserved = row["memory"], row["memory"]["reserved"]
                told = "" if reserved is None else f", {reserved / GB:.1f} reserved"
                return f"{memory['peak'] / GB:.1f}{told}; {memory['before_training'] / GB:.1f} before step 1"

            rows.append((method, size, paper, found.cell("table3", show)))
    return markdown(["method", "batch", "the paper's, G", "peak here, G"], rows) + (
        machines(result, "table3") if result else ""
    )
