"""Trainer on two ranks: both hold the same bits, also where a method looked at the data first."""

import os
import re
import subprocess
import sys

import pytest

METHODS = ["vanilla", "dps-dense", "dps-mix", "sam", "child-tuning-d", "child-tuning-f", "lora"]


@pytest.mark.slow
def test_both_ranks_hold_the_same_bits(tmp_path):
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    command = [*launch, "--main_process_port", "0", "--mixed_precision", "no", "-m", "tests.integrations.ranks"]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path), *METHODS],
        capture_output=True,
        text=True,
        timeout=1000,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), "ACCELERATE_USE_CPU": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    digests = {(name, rank): digest for rank, name, digest in re.findall(r"RANK (\d) (\S+) (\w+)", done.stdout)}
    assert len(digests) == 2 * len(METHODS)
    for name in METHODS:
        assert digests[name, "0"] == digests[name, "1"], name
    assert len({digests[name, "0"] for name in METHODS}) == len(METHODS)
