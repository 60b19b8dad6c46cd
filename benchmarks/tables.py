"""The tables of README.md and docs/profile.md, from results/*.json: each between two markers, with its machine."""

import json
import re

import gpu_tables
from common import HERE, RESULTS
from gpu_tables import GB, markdown, measured_on, spread

README, PROFILE = HERE / "README.md", HERE.parent / "docs" / "profile.md"


def write_tables():
    """Write every table whose results are there anew; of a GPU's also those that were not measured."""
    built = {name: build() for name, build in TABLES.items()}
    gpu = read("gpu")
    built["gpu"] = gpu_tables.goals(gpu)
    replace_tables(README, {name: table for name, table in built.items() if table is not None})
    replace_tables(PROFILE, {"table3": gpu_tables.table_3(gpu)})


def replace_tables(page, tables):
    """Write tables into a page, each between a pair of markers."""
    text = page.read_text()
    for name, table in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, found = re.subn(pattern, lambda match, table=table: match[1] + table + match[2], text, flags=re.DOTALL)
        assert found == 1, f"{page} has no place for {name}"
    page.write_text(text)
    print(f"wrote {page}")


def read(name):
    """Return a result, None where it was not measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def cost(result, method, batch_size):
    found = [each for each in result["costs"] if each["method"]["name"] == method and each["batch_size"] == batch_size]
    return found[0]


def goals():
    times, memory = read("methods-minilm-cpu"), read("methods-minilm-cpu-memory")
    trainer, startup = read("trainer"), read("startup")
    if None in (times, memory, trainer, startup):
        return None

    def weight(method):
        return f"{cost(memory, method, 16)['bytes_a_linear_weight']:.2f}"

    def peak(method):
        found = cost(memory, method, 32)
        return f"{found['memory']['peak'] / found['vanilla_peak']:.2f}x"

    def time_of(method):
        found = cost(times, method, 16)
        return spread(found["ratio"], found["ratio_quartiles"])

    speed, peaks, started = trainer["speed"], trainer["peak_bytes"], startup.get(times["about"]["processor"])
    still = speed["same, without dropout"]["accuracy"]
    methods, theirs = "`benchmarks/methods.py`", "`benchmarks/trainer.py`"
    rows = [
        (
            "dps-dense memory beyond vanilla, bytes a linear weight",
            "<= 4.05",
            weight("dps-dense"),
            "20 (authors'), 18.8 (paper)",
            methods,
        ),
        ("dps-mix", "<= 8.2", weight("dps-mix"), "50, 34.7", methods),
        ("mixout", "<= 4.05", weight("mixout"), "12", methods),
        ("child-tuning-d", "<= 1", weight("child-tuning-d"), "1", methods),
        ("r3f, r-drop peak at batch 32, over vanilla", "<= 1.4x", f"{peak('r3f')}, {peak('r-drop')}", "2.0x", methods),
        ("dps-dense step over vanilla, CPU", "<= 1.05", time_of("dps-dense"), "", methods),
        ("dps-mix, CPU", "<= 1.08", time_of("dps-mix"), "", methods),
        ("mixout, CPU", "<= 1.08", time_of("mixout"), "", methods),
        ("vanilla against itself, CPU: the noise", "", time_of("vanilla"), "", methods),
        (
            "vanilla, examples a second over `Trainer`'s: its own padding and our precision",
            ">= 1.3x",
            f"{speed['same']['ratio']:.2f}x",
            "1.0",
            theirs,
        ),
        (
            "the same, `Trainer` as run_glue.py has it: fp32, all padded to 128",
            ">= 1.3x",
            f"{speed['usual']['ratio']:.2f}x",
            "1.0",
            theirs,
        ),
        (
            "accuracy without dropout, dpstune and `Trainer`",
            "equal",
            f"{still['dpstune']:.4f}, {still['trainer']:.4f}",
            "",
            theirs,
        ),
        (
            "time before step 1, second and third run of a process",
            "< 1 s",
            ", ".join(f"{value:.2f} s" for value in started["seconds_before_step_1"][1:])
            if started
            else "not measured",
            "",
            "`benchmarks/startup.py`",
        ),
        (
            "peak memory of vanilla over `Trainer`'s (a process each): same, usual",
            "<= 1.0x",
            f"{peaks['dpstune'] / peaks['same']:.2f}x, {peaks['dpstune'] / peaks['usual']:.2f}x",
            "1.0",
            theirs,
        ),
    ]
    return markdown(["what", "goal", "found", "public code", "command"], rows) + measured_on(times)


def methods():
    """A row a method: its step and its peak beside vanilla's with the same dropout."""
    times, memory = read("methods-minilm-cpu"), read("methods-minilm-cpu-memory")
    if None in (times, memory):
        return None
    sizes = dict.fromkeys(each["batch_size"] for each in memory["costs"])
    lines = []
    for each in times["costs"]:
        name = each["method"]["name"]
        found = [cost(memory, name, size) for size in sizes]
        peaks = [
            f"{one['memory']['peak'] / one['vanilla_peak']:.2f}x, {one['memory']['peak'] / 2**20:,.0f}" for one in found
        ]
        lines.append([name, spread(each["ratio"], each["ratio_quartiles"]), *peaks])
    header = ["method", "step over vanilla", *(f"peak over vanilla's, MiB: batch {size}" for size in sizes)]
    return markdown(header, lines) + measured_on(times)


def parts():
    result = read("parts")
    if result is None:
        return None
    rows = [
        (name, row["milliseconds"]["before"], row["milliseconds"]["now"], f"{row['ratio']['median']:.2f}")
        for name, row in result["rows"].items()
    ]
    return markdown(["part: before, now", "before, ms", "now, ms", "ratio"], rows) + measured_on(result)


def passes():
    result = read("passes")
    if result is None:
        return None
    rows = [("what a pass costs beside its tokens", f"{result['a_pass']['tokens']} tokens")]
    rows += [
        (f"RTE's batches cut, {method}", f"{row['speedup']:.2f}x as fast") for method, row in result["cut"].items()
    ]
    rows += [
        (
            f"r-drop, {size}: two passes in the memory of one, over one of twice the size",
            spread(row["median"], row["quartiles"]),
        )
        for size, row in result["two_over_doubled"].items()
    ]
    return markdown(["what", "found"], rows) + measured_on(result)


def cpu():
    result = read("cpu")
    if result is None:
        return None
    rows = [
        (
            name,
            row["threads"],
            row["seconds"],
            row["cpu_seconds"],
            f"{row['page_faults']:,}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
        )
        for name, row in result["least"].items()
    ]
    columns = ["setting", "threads", "seconds", "CPU seconds", "page faults", "peak MiB"]
    return markdown(columns, rows) + measured_on(result)


def scaling():
    result = read("scaling")
    if result is None:
        return None
    rows = []
    for row in result["rows"]:
        peaks = [f"{value / 2**20:,.0f}" for value in (row["vanilla_peak"], row["memory"]["peak"])]
        time = [f"{row['seconds']:.2f}", f"{row['ratio']:.3f}", f"{row['tokens_per_second']:,.0f}"]
        rows.append((row["recipe"], f"{row['batch_size']} x {row['length']}", *time, *peaks))
    columns = [
        "recipe",
        "batch",
        "dps-dense, s a step",
        "over vanilla",
        "tokens/s",
        "vanilla peak MiB",
        "dps-dense peak MiB",
    ]
    return markdown(columns, rows) + measured_on(result)


def precision():
    result = read("precision")
    if result is None:
        return None
    rows = [
        (
            name,
            f"{row['selected_otherwise']:.2%}",
            f"{row['largest_difference']:.1e}",
            f"{row['answers_that_differ']} of {result['answers']}",
        )
        for name, row in result["against_fp32"].items()
    ]
    columns = ["precision", "weights selected otherwise", "largest difference of a logit", "answers that differ"]
    return markdown(columns, rows) + measured_on(result)


def launches():
    result = read("launches")
    if result is None:
        return None

    def over(row, key):
        return f"{row[key]:,} ({row[key] / row[f'vanilla_{key}']:.2f}x)"

    rows = [
        (row["method"], row["phase"], over(row, "launches"), over(row, "operations"), len(row["waits"]))
        for row in result["rows"]
    ]
    columns = ["method", "phase", "kernel launches", "operations", "waits for the device"]
    return markdown(columns, rows) + simulated_with(result)


def peaks():
    from dpstune.report.profile_report import TABLE_3

    result = read("launches")
    if result is None:
        return None

    def most(size, name):
        found = result["peaks"][size][name]
        return f"{max(found['step'], found['prepare']) / GB:.1f} ({TABLE_3[int(size)][name]})"

    rows = [(name, *(most(size, name) for size in result["peaks"])) for name in TABLE_3[16]]
    columns = ["method", *(f"batch {size}, G (Table 3)" for size in result["peaks"])]
    return markdown(columns, rows) + simulated_with(result)


def simulated_with(result):
    versions = result["about"]["packages"]
    return (
        f"\n{result['model']}, {result['length']} tokens, fp16, loss scaling, simulated; torch {versions['torch']}, "
        f"transformers {versions['transformers']}; {result['about']['date']}.\n"
    )


STEP_GOALS = {"rte": "ratio >= 0.9", "short": "ms <= the other's", "same": "ratio >= 1.5", "usual": ""}


def steps():
    """A row a measurement and processor; the start of a process is in it, too."""
    result, started = read("steps"), read("startup") or {}
    if result is None:
        return None
    lines, notes = [], ""
    for processor, part in result.items():
        for group in ("rte", "short"):
            for name, row in part[group].items():
                mine, plain = (f"{row['tokens_a_second'][side]:,.0f}" for side in ("dpstune", "plain"))
                each = ", ".join(f"{row['milliseconds_a_step'][side]:.0f}" for side in ("dpstune", "plain"))
                ratio = spread(row["ratio"]["median"], row["ratio"]["quartiles"])
                lines.append((name, processor, STEP_GOALS[group], mine, plain, ratio, each))
        lines.append(("products alone, 16 x 64", processor, "", f"{part['ceiling']:,}", "", "", ""))
        for name, row in part["attention"].items():
            ratio, both = f"{row['torch'] / row['dpstune']:.1f}", f"{row['dpstune']}, {row['torch']}"
            lines.append((f"attention of a layer, {name}", processor, "", "", "", ratio, both))
        for precision, found in part["tiny"].items():
            lines.append((f"tiny model, {precision}", processor, "ms <= 10", "", "", "", f"{found['median']}"))
        for name, row in part["trainer"].items():
            ratio = spread(row["ratio"], row["quartiles"])
            title = f"examples a second over `Trainer`'s, {name} settings"
            lines.append((title, processor, STEP_GOALS[name], "", "", ratio, ""))
        if processor in started:
            lines += start_lines(processor, started[processor])
        notes += measured_on(part)
    header = ["what", "processor", "goal", "dpstune, tokens/s", "plain loop, tokens/s", "ratio", "ms: dpstune, other"]
    return markdown(header, lines) + notes


STARTS = (
    # title, goal, the times of the two sides, their ratio
    ("start of a process to step 1, over the usual imports", "ms <= 3000", "seconds_to_step_1", "step_1_over_imports"),
    ("CPU time of `dpstune --help` over its libraries'", "ratio <= 2.5", "cpu_seconds", "help_over_imports"),
)


def start_lines(processor, part):
    """Return the rows of how a process starts, in the columns of ``steps``."""
    lines = []
    for title, goal, times, over in STARTS:
        both = ", ".join(f"{1000 * each['median']:.0f}" for each in part[times].values())
        lines.append((title, processor, goal, "", "", spread(part[over]["median"], part[over]["quartiles"]), both))
    return lines


SCORED = {"rte": "RTE's pairs", "sick": "single sentences of SICK"}


def scoring():
    result = read("scoring")
    if result is None:
        return None
    lines, notes = [], ""
    for processor, part in result.items():
        for name, title in SCORED.items():
            rates, times = part[name]["texts_a_second"], part[name]["times_as_fast"]
            for side, rate in rates.items():
                found = times.get(side)
                ratio = spread(found["median"], found["quartiles"]) if found else ""
                lines.append((title, processor, side, f"{rate['median']:,.0f}", ratio))
        notes += measured_on(part)
    return markdown(["texts", "processor", "way", "texts a second", "dpstune's over it"], lines) + notes


def jobs():
    result = read("jobs")
    if result is None:
        return None
    lines, notes = [], ""
    for processor, part in result.items():
        for row in part["rows"]:
            shape = [f"{row['jobs']} x {row['threads']}", str(row["runs"])]
            lines.append((processor, *shape, f"{row['seconds']:.0f}", str(row["runs_an_hour"])))
        notes += measured_on(part)
    return markdown(["processor", "workers x threads", "runs", "seconds", "runs an hour"], lines) + notes


def growth():
    result = read("growth")
    if result is None:
        return None
    lines = [
        (
            f"{row['examples']:,}",
            f"{row['labels']:,}",
            *(f"{row[key]:.1f}" for key in ("first_step", "seconds")),
            f"{row['peak_mib']:,}",
            f"{row['predictions_mib']:.1f}",
        )
        for row in result["rows"]
    ]
    header = ["examples", "labels", "s to step 1", "s in all", "peak MiB", "predictions, MiB"]
    return markdown(header, lines) + measured_on(result)


TABLES = {
    "steps": steps,
    "scoring": scoring,
    "jobs": jobs,
    "growth": growth,
    "goals": goals,
    "methods": methods,
    "parts": parts,
    "launches": launches,
    "peaks": peaks,
    "passes": passes,
    "cpu": cpu,
    "scaling": scaling,
    "precision": precision,
}
