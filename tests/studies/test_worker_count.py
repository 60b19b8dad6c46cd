"""How many runs a machine trains at a time where nobody says it."""

import pytest
import torch
from transformers import BartConfig, BertConfig, BertModel

from dpstune.settings.sections import ModelSection
from dpstune.studies import worker_count
from dpstune.studies.worker_count import GIB, default_workers, memory_bytes, run_bytes

LARGE = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)


@pytest.mark.parametrize(("threads", "memory", "workers"), [(1, 64, 1), (4, 64, 4), (64, 64, 5), (64, 6, 1)])
def test_a_worker_for_each_core_where_memory_allows_it(monkeypatch, tmp_path, threads, memory, workers):
    LARGE.save_pretrained(tmp_path)  # a run of it takes about 9 GiB
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(worker_count, "memory_bytes", lambda: memory * GIB)
    assert default_workers(ModelSection(name=str(tmp_path))) == workers


@pytest.mark.parametrize(("gpus", "workers"), [(["0"], 1), (["0", "1"], 2), ([], 1)], ids=["one", "two", "other"])
def test_a_worker_for_each_gpu(monkeypatch, gpus, workers):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr("dpstune.device.hardware.visible_gpus", lambda: gpus)
    assert default_workers(ModelSection(name="minilm")) == workers


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(vocab_size=500, hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128),
        LARGE,
    ],
    ids=["small", "large"],
)
def test_the_weights_of_a_run_are_counted(config):
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in BertModel(config).parameters())
    assert run_bytes(config) == pytest.approx(GIB + 24 * weights, rel=0.05)


def test_a_decoder_counts_too():
    with_decoder, without = (run_bytes(BartConfig(decoder_layers=layers)) for layers in (12, 0))
    assert with_decoder - without == 24 * 12 * 12 * 1024**2


def test_the_machine_has_memory():
    assert memory_bytes() >= GIB
