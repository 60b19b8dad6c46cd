"""A run that is killed, interrupted or damaged ends with the very bits of a run that never stopped."""

import json
import random
import shutil
import signal

import pytest

from dpstune.runs.folder import read_metrics

KILLS = 6


def arguments(recipe, output, method, accumulation=1, save_every=2, dropout=0.1):
    return [
        "train",
        "--recipe",
        recipe,
        "--output",
        output,
        "--method",
        method,
        *(["--set", "method.p=0.4", "--set", "method.update_ratio=0.2"] if method.startswith("dps") else []),
        *("--set", f"training.batch_size={6 // accumulation}"),
        *("--set", f"training.gradient_accumulation={accumulation}"),
        *("--set", f"training.save_every={save_every}"),
        *("--set", f"model.dropout={dropout}"),
    ]


def only_run(output):
    (result,) = output.glob("*/*/*/result.json")
    return result.parent


def weights(output):
    return (only_run(output) / "model" / "model.safetensors").read_bytes()


def losses(output):
    return [(line["step"], line["loss"]) for line in read_metrics(only_run(output) / "metrics.jsonl") if "loss" in line]


def kill_until_finished(zygote, command, rng, seconds):
    """Start a command again and again, each time killed at a random moment, until it ends by itself.

    Returns how often it was killed, how often it went on from a checkpoint, and how long it took in the end.
    """
    killed = resumed = 0
    while True:
        after = rng.uniform(0.3, 0.95) * seconds if killed < KILLS else None
        run = zygote.run(*command, after=after)
        resumed += "continuing after step" in run.stderr
        if run.code == 0:
            return killed, resumed, run.seconds
        assert run.code == -signal.SIGKILL, (run.code, run.stderr)
        killed += 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "accumulation"), [("vanilla", 1), ("dps-dense", 1), ("dps-mix", 1), ("dps-mix", 2), ("sam", 2)]
)
def test_killed_at_random_moments_a_run_ends_bit_identical(zygote, tiny_task, tmp_path, method, accumulation):
    zygote.run(*arguments(tiny_task, tmp_path / "warm", method, accumulation))  # the first run of all takes longer
    whole = zygote.run(*arguments(tiny_task, tmp_path / "whole", method, accumulation))
    assert whole.code == 0, whole.stderr
    rng = random.Random(f"{method}{accumulation}")
    killed = resumed = 0
    seconds = whole.seconds
    for number in range(10):  # on a busy machine the moments may all come too early or too late
        output = tmp_path / f"killed-{number}"
        command = arguments(tiny_task, output, method, accumulation)
        more_killed, more_resumed, seconds = kill_until_finished(zygote, command, rng, seconds)
        killed, resumed = killed + more_killed, resumed + more_resumed
        assert weights(output) == weights(tmp_path / "whole")
        assert losses(output) == losses(tmp_path / "whole")
        assert not list(only_run(output).glob(".*.partial"))
        if killed >= 3 and resumed >= 1:
            return
    pytest.fail(f"of 10 runs that were to be killed {killed} were, and {resumed} went on from a checkpoint")


@pytest.mark.parametrize(
    ("number", "code", "accumulation"),
    [
        (signal.SIGTERM, 143, 1),
        pytest.param(signal.SIGINT, 130, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, 3, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, 3, marks=pytest.mark.slow),
    ],
)
def test_a_signal_writes_a_checkpoint_and_the_same_command_continues(
    zygote, tiny_task, tmp_path, number, code, accumulation
):
    long = ["--set", "training.epochs=16", "--set", "training.learning_rate=0.0003"]
    command = [*arguments(tiny_task, tmp_path / "out", "dps-mix", accumulation, save_every=10_000), *long]

    def trained_a_little():
        logs = list((tmp_path / "out").glob("*/*/*/metrics.jsonl"))
        return bool(logs) and logs[0].stat().st_size > 2000

    stopped = zygote.run(*command, when=trained_a_little, send=number)
    assert stopped.code == code, stopped.stderr
    assert stopped.seconds_after_signal < 30
    assert "a checkpoint was written and the same command continues from it" in stopped.stderr.splitlines()[-1]
    (checkpoint,) = (tmp_path / "out").glob("*/*/*/checkpoints/step-*")
    step = int(checkpoint.name.removeprefix("step-"))
    finished = zygote.run(*command)
    assert finished.code == 0, finished.stderr
    assert f"continuing after step {step} of 192" in finished.stderr

    whole = zygote.run(*[*arguments(tiny_task, tmp_path / "whole", "dps-mix", accumulation, save_every=10_000), *long])
    assert whole.code == 0, whole.stderr
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_training_ends_the_run_at_once(zygote, tiny_task, tmp_path, number):
    run = zygote.run(*arguments(tiny_task, tmp_path / "out", "vanilla"), after=0.02, send=number)
    assert run.code == 128 + number
    assert run.seconds_after_signal < 30
    assert "Traceback" not in run.stderr


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(zygote, tiny_task, tmp_path):
    long = ["--set", "training.epochs=10"]  # it should not end before it is killed
    command = [*arguments(tiny_task, tmp_path / "out", "dps-mix"), *long]

    def saved_twice():
        return len(list((tmp_path / "out").glob("*/*/*/checkpoints/step-*"))) == 2

    assert zygote.run(*command, when=saved_twice).code == -signal.SIGKILL
    *_, before, newest = sorted((tmp_path / "out").glob("*/*/*/checkpoints/step-*"))
    earlier = newest.with_name(f"damaged-{newest.name}")  # of a step that was damaged once before
    earlier.mkdir()
    (earlier / "state.pt").touch()
    content = bytearray((newest / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "state.pt").write_bytes(content)
    run = zygote.run(*command)
    assert run.code == 0, run.stderr
    assert f"{newest.name} is damaged; falling back to the one before" in run.stderr
    assert f"continuing after step {int(before.name.removeprefix('step-'))} of" in run.stderr
    assert zygote.run(*arguments(tiny_task, tmp_path / "whole", "dps-mix"), *long).code == 0
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_a_finished_run_is_not_run_again_unless_told(zygote, tiny_task, tmp_path):
    command = arguments(tiny_task, tmp_path / "out", "dps-dense")
    first = zygote.run(*command, "--json")
    again = zygote.run(*command, "--json")
    assert first.code == again.code == 0
    assert json.loads(first.stdout) == json.loads(again.stdout)
    assert "finished already" in again.stderr
    assert "step " not in again.stderr.replace("steps", "")
    before = weights(tmp_path / "out")
    fresh = zygote.run(*command, "--fresh")
    assert fresh.code == 0
    assert "the earlier run is kept as" in fresh.stderr
    assert len(list((tmp_path / "out").glob("*/*/*/result.json"))) == 2
    for result in (tmp_path / "out").glob("*/*/*/result.json"):
        assert (result.parent / "model" / "model.safetensors").read_bytes() == before


def test_a_finished_run_without_a_model_is_trained_anew_where_one_is_needed(zygote, tiny_task, tmp_path):
    command = arguments(tiny_task, tmp_path, "vanilla")
    first = zygote.run(*command, "--json")
    (model,) = tmp_path.glob("*/*/*/model")
    shutil.rmtree(model)  # as a sweep with --no-models leaves it
    again = zygote.run(*command, "--json")
    assert again.code == 0, again.stderr
    assert f"{model.parent} holds no model, as sweep --no-models leaves it: trained anew" in again.stderr
    assert "the earlier run is kept as" in again.stderr
    assert (model / "model.safetensors").is_file()
    assert json.loads(again.stdout)["value"] == json.loads(first.stdout)["value"]
    assert "finished already" in zygote.run(*command).stderr
