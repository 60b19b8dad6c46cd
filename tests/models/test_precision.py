"""What `auto` takes for a model."""

import pytest
import torch

from dpstune.errors import RequestError
from dpstune.models.precision import NARROW, model_precision
from dpstune.settings.sections import ModelSection
from tests.tiny import save_tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_tiny_model(folder / "narrow", hidden_size=NARROW // 2)
    save_tiny_model(folder / "wide", hidden_size=NARROW)
    return {name: ModelSection(name=str(folder / name)) for name in ("narrow", "wide")}


@pytest.fixture
def native_bf16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.mark.usefixtures("native_bf16")
def test_a_narrow_model_trains_in_fp32_on_a_cpu(models):
    assert model_precision("auto", models["narrow"], "cpu") == "fp32"
    assert model_precision("auto", models["wide"], "cpu") == "bf16"


@pytest.mark.usefixtures("native_bf16")
def test_what_was_asked_for_is_taken(models):
    assert model_precision("bf16", models["narrow"], "cpu") == "bf16"
    assert model_precision("fp32", models["wide"], "cpu") == "fp32"


def test_a_gpu_takes_what_it_computes_natively(models, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated: True)
    assert model_precision("auto", models["narrow"], "cuda") == "bf16"


def test_a_precision_that_the_device_lacks_is_refused_before_the_model_is_read():
    with pytest.raises(RequestError, match="does not support bf16"):
        model_precision("bf16", ModelSection(name="no/such/model"), "mps")
