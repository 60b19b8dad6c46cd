"""What only a GPU can show, in eight minutes: equal bits, overflows, times over vanilla's, memory beside Table 3.

Each stage is a process of its own with a time of its own, and its findings are written as it makes them: a run that is
cut off leaves what it measured, and a stage that fails does not stop the others. Nothing is downloaded: weights are
random and inputs drawn, but for the last stage, which is skipped where no data lies beside.

    python benchmarks/gpu.py [--minutes 8] [--stage NAME]...     writes results/gpu.json
    python benchmarks/gpu.py --rehearse                          every stage on any machine, with tiny models
    python benchmarks/run.py --tables                            the tables of README.md and docs/profile.md from it

It needs torch, transformers, accelerate, numpy, safetensors, huggingface_hub and what they bring (filelock, PyYAML),
and one wheel more: pydantic. dpstune itself need not be installed.

Real data is RTE in DPSTUNE_GLUE, a folder in GLUE's own layout, and the model of the demo extra, or of --minilm DIR;
metrics, and with them datasets and evaluate, are not needed.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # dpstune itself, which need not be installed

from common import RESULTS, about  # noqa: E402
from rig import Stage, child_environment, first_line  # noqa: E402

# In the order of what they settle; seconds of 480.
STAGES = {
    "strict": 20,
    "methods": 50,
    "padded": 25,
    "selection": 15,
    "trace": 40,
    "table3": 160,
    "half": 20,
    "trainer": 45,
    "sharing": 30,
    "compile": 40,
    "minilm": 35,
}
WHOLE = sum(STAGES.values())
START = (
    15  # seconds that a process may take to start, beside the stage's own; whoever needs less leaves it to the others
)
CLOSING = 2  # seconds in which a stage that is told to stop should do so
LEAST = 5  # seconds below which no stage is started
NO_GPU = "there is no GPU; --rehearse runs every stage with tiny models on any machine"


def main():
    asked = read_arguments()
    if asked.child:
        return work(asked)
    if asked.rehearse:
        output = Path(asked.output or tempfile.mkdtemp(prefix="dpstune-gpu-rehearsal-"))
        if output.resolve() == RESULTS.resolve():
            sys.exit(f"a rehearsal measures nothing: another folder than {RESULTS}, please")
    else:
        if not has_gpu():
            sys.exit(NO_GPU)
        output = Path(asked.output or RESULTS)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        sys.exit(f"{output} is a file; gpu.json goes into a folder")
    except OSError as error:
        sys.exit(f"{output} cannot be made: {error.strerror}; another folder, please")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    failed = run_stages(asked, output / "gpu.json")
    return 1 if failed else 0


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=minutes, default=WHOLE / 60, help="for all stages; each takes its share")
    parser.add_argument("--stage", action="append", choices=STAGES, help="this one alone; repeatable")
    parser.add_argument("--rehearse", action="store_true", help="tiny models, on any machine")
    parser.add_argument("--output", metavar="DIR", help="where gpu.json goes; results/ where nothing is said")
    parser.add_argument(
        "--minilm", metavar="DIR", type=folder, help="a folder with MiniLM's weights, for the last stage"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def minutes(text):
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("a number above 0, please")
    return value


def folder(text):
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return text


def has_gpu():
    """Ask a process of its own: one that has talked to a GPU holds memory of it."""
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", question], stderr=subprocess.DEVNULL).returncode == 0


def run_stages(asked, path):
    """Run the stages one after the other and return the names of those that failed.

    Where some were asked for, what others found before stays in the file.
    """
    end = time.monotonic() + 60 * asked.minutes
    stages = read_earlier(path) if asked.stage else {}
    content = {"stages": stages}
    for name in asked.stage or STAGES:
        box = min(end - time.monotonic(), STAGES[name] * asked.minutes * 60 / WHOLE + START)
        if box < LEAST:
            stages.setdefault(name, {"status": "no time left", "seconds": 0.0, "found": {}})
            write(path, content)
            print(f"--- {name}: no time left", flush=True)
            continue
        print(f"--- {name}: {box:.0f} s at most", flush=True)
        for outcome in run_stage(name, box, asked):
            stages[name] = {"rehearsal": asked.rehearse, **outcome}
            write(path, content)
        write(path, content)
        told = stages[name].get("error") or stages[name].get("reason") or ""
        print(f"--- {name}: {stages[name]['status']} after {stages[name]['seconds']:.1f} s {told}", flush=True)
    print(f"wrote {path}", flush=True)
    return [name for name in asked.stage or STAGES if stages[name]["status"] == "failed"]


def read_earlier(path):
    """Return the stages that an earlier run wrote; a file that cannot be read is kept beside."""
    try:
        return dict(json.loads(path.read_text())["stages"])
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError):
        path.replace(path.with_suffix(".damaged"))
        print(f"{path} could not be read; it is now {path.with_suffix('.damaged')}", flush=True)
        return {}


def run_stage(name, box, asked):
    """Run one stage as a process of its own; yield its outcome whenever it has found something, and at its end."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dpstune-gpu-") as folder:
        part, errors = Path(folder) / "part.json", Path(folder) / "stderr"
        command = [sys.executable, __file__, "--child", name, "--part", str(part), "--seconds", str(box - CLOSING)]
        command += ["--rehearse"] * asked.rehearse + (["--minilm", asked.minilm] if asked.minilm else [])
        with errors.open("w") as stderr:
            environment = child_environment(HERE.parent) | {"TMPDIR": folder}
            if asked.rehearse:
                environment["OMP_NUM_THREADS"] = "1"  # tiny models are faster on one thread
            child = subprocess.Popen(command, stderr=stderr, env=environment, start_new_session=True)
        seen = None
        try:
            while child.poll() is None and time.monotonic() - started < box:
                time.sleep(0.1)
                if part.exists() and (now := part.stat().st_mtime_ns) != seen:
                    seen = now
                    yield {"status": "under way", "seconds": time.monotonic() - started, **read_part(part)}
        finally:
            in_time = child.poll() is not None
            end_group(child)
        outcome = {"status": "done", "seconds": round(time.monotonic() - started, 1), **read_part(part)}
        if not in_time:
            outcome["status"] = "out of time"
        elif child.returncode != 0:
            outcome["status"] = "failed"
            last = errors.read_text(errors="replace").strip().splitlines()[-20:]
            outcome.setdefault("error", last[-1] if last else f"ended with status {child.returncode}")
            outcome["stderr"] = last
        yield outcome


def read_part(part):
    return json.loads(part.read_text()) if part.exists() else {"found": {}}


def end_group(child):
    """End a stage's process and whatever it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def write(path, content):
    from dpstune.common.writing import write_json

    write_json(path, content)


def work(asked):
    """Be the process of a stage."""
    from dpstune.device.determinism import fix_workspaces

    fix_workspaces()  # before anything talks to the GPU
    stage = Stage(asked.part, asked.seconds, asked.rehearse, minilm=asked.minilm)
    stage.write(about=about())
    try:
        reason = import_module(f"gpu_stages.{asked.child}").run(stage)
    except Exception as error:
        traceback.print_exc()
        stage.write(error=first_line(error))
        return 1
    if reason is not None:
        stage.write(status="skipped", reason=reason)
    return 0


if __name__ == "__main__":
    sys.exit(main())
