"""LoRA: the formula by hand, PEFT's own model, which layers are adapted, merging, and what is put back."""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from dpstune import build_method
from dpstune.common.interruption import Interrupted
from dpstune.device.randomness import stream_seed
from dpstune.errors import RequestError
from dpstune.models.structure import encoder_linears, query_and_value_linears
from dpstune.recipe.recipe import load_recipe
from dpstune.training import engine
from dpstune.training.best import BestWeights
from dpstune.training.checkpoints import Checkpoints
from tests.methods.test_freezing import HEADS, check_recomputed_gradients, names, steps_of, trainable
from tests.methods.test_twin import batch
from tests.tiny import FAMILIES, LAYERS, WITHOUT_PEFT, tiny_classifier
from tests.training.stopping import stop_within_an_evaluation

needs_peft = pytest.mark.skipif(WITHOUT_PEFT, reason="the lora extra (PEFT) is not installed")
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SETTINGS = {"name": "lora", "r": 3, "alpha": 12.0}
SCALE = 4.0  # alpha / r


def attached(family="bert", seed=5, changes=STILL, **settings):
    model = tiny_classifier(family, num_labels=3, **changes).train()
    method = build_method({**SETTINGS, **settings})
    method.attach(model, total_steps=10, seed=seed)
    return model, method


def pairs_of(model):
    """Return each adapted layer's A and B."""
    return {
        name: (module.lora_A["default"].weight, module.lora_B["default"].weight)
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


def optimizer_of(model):
    # the first steps of a B are of gradients near 0: a large eps lets no float noise decide
    return torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.02, eps=1e-3)


def logits_of(model):
    with torch.no_grad():
        return copy.deepcopy(model).eval()(**{**batch(), "labels": None}).logits


class Product(nn.Module):
    """W + alpha / r * B A, for torch's own parametrisation of a weight."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = nn.Parameter(a.detach().clone()), nn.Parameter(b.detach().clone())

    def forward(self, weight):
        return weight + SCALE * self.b @ self.a


# Each family's linear layers of one layer; the first ones give queries and values.
BERT = ["attention.self.query", "attention.self.value"]
BERT_OTHERS = ["attention.self.key", "attention.output.dense", "intermediate.dense", "output.dense"]
LAYERS_OF = {
    "bert": ("bert.encoder.layer.{}.", BERT, BERT_OTHERS),
    "roberta": ("roberta.encoder.layer.{}.", BERT, BERT_OTHERS),
    "electra": ("electra.encoder.layer.{}.", BERT, BERT_OTHERS),
    "deberta": (
        "deberta.encoder.layer.{}.",
        ["attention.self.in_proj"],
        ["attention.self.pos_proj", "attention.self.pos_q_proj", *BERT_OTHERS[1:]],
    ),
    "distilbert": (
        "distilbert.transformer.layer.{}.",
        ["attention.q_lin", "attention.v_lin"],
        ["attention.k_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"],
    ),
    "modernbert": ("model.layers.{}.", ["attn.Wqkv"], ["attn.Wo", "mlp.Wi", "mlp.Wo"]),
}


class TestTargets:
    @pytest.mark.parametrize("family", LAYERS_OF)
    def test_layers_are_found(self, family):
        model = tiny_classifier(family)
        place, first, others = LAYERS_OF[family]
        places = [place.format(number) for number in range(LAYERS)]
        assert set(query_and_value_linears(model)) == {f"{each}{name}" for each in places for name in first}
        assert set(encoder_linears(model)) == {f"{each}{name}" for each in places for name in (*first, *others)}

    def test_of_bart_the_decoder_and_what_it_takes_from_the_encoder_are_adapted_too(self):
        expected = {
            f"model.{side}.layers.{number}.{kind}.{name}"
            for number in range(LAYERS)
            for side, kind in [("encoder", "self_attn"), ("decoder", "self_attn"), ("decoder", "encoder_attn")]
            for name in ("q_proj", "v_proj")
        }
        assert set(query_and_value_linears(tiny_classifier("bart"))) == expected

    @needs_peft
    @pytest.mark.parametrize("family", [*FAMILIES, "deberta-v2"])
    def test_they_are_those_that_peft_chooses(self, family):
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as CHOSEN

        model = tiny_classifier(family)
        ends = tuple(f".{name}" for name in CHOSEN[family])
        linears = {name for name, part in model.named_modules() if isinstance(part, nn.Linear)}
        assert set(query_and_value_linears(model)) == {name for name in linears if name.endswith(ends)}

    def test_a_layer_without_queries_is_refused(self):
        class Strange(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList([nn.Sequential(nn.Linear(2, 2))])

        with pytest.raises(
            RequestError, match=r"^Strange has no layers of queries and values that dpstune could find$"
        ):
            query_and_value_linears(Strange())
        assert list(encoder_linears(Strange())) == ["layers.0.0"]


@needs_peft
class TestFormula:
    @pytest.mark.parametrize("family", [*FAMILIES, "distilbert", "albert", "modernbert"])
    @pytest.mark.parametrize("target", ["query-value", "all-linear"])
    def test_what_trains_is_a_and_b_and_the_head(self, family, target):
        model, method = attached(family, target=target, changes={})
        targets = (encoder_linears if target == "all-linear" else query_and_value_linears)(tiny_classifier(family))
        heads = HEADS.get(family, ("head.", "classifier."))
        added = {f"{name}.lora_{part}.default.weight" for name in targets for part in "AB"}
        assert trainable(model) == added | {name for name in names(model) if name.startswith(heads)}
        method.loss(model, batch()).backward()
        got = {name for name, weight in model.named_parameters() if weight.grad is not None}
        assert got == trainable(model)
        for a, b in pairs_of(model).values():
            assert not a.grad.any(), "as long as B is 0, A changes nothing"
            assert b.grad.any()
        weights = sum(weight.numel() for pair in pairs_of(model).values() for weight in pair)
        assert method.held_bytes() == 4 * weights

    def test_at_first_the_model_is_the_pre_trained_one(self):
        model, _ = attached()
        assert torch.equal(logits_of(model), logits_of(tiny_classifier(num_labels=3, **STILL)))

    @pytest.mark.parametrize("target", ["query-value", "all-linear"])
    def test_steps_are_those_of_torchs_own_parametrisation(self, target):
        """Written out: the weights of a plain model as W + alpha / r * B A, AdamW over A, B and the classifier."""
        model, method = attached(target=target)
        plain = tiny_classifier(num_labels=3, **STILL).train().requires_grad_(False)
        products = {}
        for name, (a, b) in pairs_of(model).items():
            products[name] = Product(a, b)
            nn.utils.parametrize.register_parametrization(plain.get_submodule(name), "weight", products[name])
        plain.classifier.requires_grad_(True)
        chosen = [weight for weight in plain.parameters() if weight.requires_grad]
        assert len(chosen) == 2 * len(products) + 2
        other = torch.optim.AdamW(chosen, lr=0.02, eps=1e-3)
        for _ in range(4):
            F.cross_entropy(plain(**{**batch(), "labels": None}).logits, batch()["labels"]).backward()
            nn.utils.clip_grad_norm_(chosen, 1.0)
            other.step()
            plain.zero_grad()
        steps_of(model, method, optimizer_of(model), count=4)
        for name, (a, b) in pairs_of(model).items():
            assert b.any()
            torch.testing.assert_close(a, products[name].a, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(b, products[name].b, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(logits_of(model), logits_of(plain), rtol=1e-4, atol=1e-6)
        method.detach()
        for name in products:
            torch.testing.assert_close(model.get_submodule(name).weight, plain.get_submodule(name).weight)

    def test_it_trains_what_pefts_own_model_trains(self):
        from peft import LoraConfig, get_peft_model

        model, method = attached(dropout=0.2)
        settings = LoraConfig(task_type="SEQ_CLS", r=3, lora_alpha=12, lora_dropout=0.2)
        theirs = get_peft_model(tiny_classifier(num_labels=3, **STILL), settings).train()
        inside = pairs_of(theirs)
        for name, (a, _) in pairs_of(model).items():
            inside[f"base_model.model.{name}"][0].data.copy_(a.data)
        optimizers = optimizer_of(model), optimizer_of(theirs)
        assert len(pairs_of(model)) == len(inside) == 2 * LAYERS
        for step in range(3):
            for each, optimizer in zip((model, theirs), optimizers, strict=True):
                torch.manual_seed(step)  # the adapters' dropout
                each(**batch()).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        assert torch.equal(logits_of(model), logits_of(theirs))
        method.detach()
        merged = theirs.merge_and_unload().state_dict()
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(merged[name], tensor, rtol=1e-6, atol=1e-8)

    def test_a_is_drawn_from_the_seed_and_from_no_generator(self):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        first, second, third = (pairs_of(attached(seed=seed)[0]) for seed in (5, 5, 6))
        assert torch.equal(torch.get_rng_state(), before)
        name = "bert.encoder.layer.1.attention.self.value"
        generator = torch.Generator().manual_seed(stream_seed(5, "lora", name))
        expected = torch.empty(3, 16).uniform_(-0.25, 0.25, generator=generator)
        torch.testing.assert_close(first[name][0].data, expected)
        for name, (a, b) in first.items():
            assert torch.equal(a, second[name][0])
            assert not torch.equal(a, third[name][0])
            assert not b.any()
        drawn = [a for a, _ in first.values()]
        assert not any(torch.equal(a, b) for n, a in enumerate(drawn) for b in drawn[:n])


@needs_peft
class TestMerging:
    @pytest.mark.parametrize("family", [*FAMILIES, "albert", "modernbert"])
    def test_the_finished_model_has_its_keys_and_gives_the_outputs_of_the_adapted_one(self, family):
        plain = tiny_classifier(family, num_labels=3)
        model, method = attached(family, target="all-linear", changes={})
        steps_of(model, method, optimizer_of(model))
        adapted = logits_of(model)
        method.detach()
        assert list(model.state_dict()) == list(plain.state_dict())
        assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
        assert trainable(model) == names(model)
        assert not hasattr(model, "peft_config")
        torch.testing.assert_close(logits_of(model), adapted, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(adapted, logits_of(plain), atol=1e-3)
        targets = {f"{name}.weight" for name in encoder_linears(plain)}
        for name, weight in plain.named_parameters():
            if not name.startswith(HEADS.get(family, ("head.", "classifier."))) and name not in targets:
                assert torch.equal(weight, model.get_parameter(name)), name

    def test_inside_the_block_the_model_is_the_finished_one_and_after_it_has_every_bit_it_had(self):
        model, method = attached()
        steps_of(model, method, optimizer_of(model))
        raw = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}
        modules = list(model.modules())
        with method.as_detached():
            inside = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            logits = logits_of(model)
            with method.as_detached():  # a second time: nothing more
                assert torch.equal(logits_of(model), logits)
            assert torch.equal(logits_of(model), logits)
        with pytest.raises(ZeroDivisionError), method.as_detached():
            raise ZeroDivisionError
        assert list(model.modules()) == modules
        assert model.state_dict().keys() == raw.keys() != inside.keys()
        for name, tensor in model.state_dict().items():
            assert tensor.data_ptr() == raw[name][0]
            assert torch.equal(tensor, raw[name][1])
        method.detach()
        assert torch.equal(logits_of(model), logits)
        assert all(torch.equal(inside[name], tensor) for name, tensor in model.state_dict().items())
        assert inside.keys() == model.state_dict().keys()
        with method.as_detached():  # of what is detached already: nothing
            assert torch.equal(logits_of(model), logits)

    def test_half_precision_weights_are_merged_in_float32(self):
        model = tiny_classifier(num_labels=3).bfloat16().train()
        method = build_method(SETTINGS)
        method.attach(model, total_steps=4, seed=1)
        pairs = {name: (a.detach().clone(), b) for name, (a, b) in pairs_of(model).items()}
        for _, b in pairs.values():
            b.data.normal_()
        frozen = {name: model.get_submodule(name).base_layer.weight.clone() for name in pairs}
        method.detach()
        for name, (a, b) in pairs.items():
            assert a.dtype == torch.float32
            exact = (frozen[name].float() + SCALE * b @ a).bfloat16()
            assert torch.equal(model.get_submodule(name).weight, exact)

    def test_what_is_frozen_for_a_loop_that_never_attaches_is_given_back(self):
        model, plain = tiny_classifier(), tiny_classifier()
        method = build_method(SETTINGS)
        method.freeze(model)
        method.freeze(model)
        assert any(name.endswith("lora_A.default.weight") for name in trainable(model))
        method.detach()
        assert trainable(model) == names(model) == names(plain)
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())

    def test_gradient_checkpointing_gives_the_same_gradients(self):
        model, method = attached()
        for _, b in pairs_of(model).values():
            b.data.normal_(generator=torch.Generator().manual_seed(1))
        check_recomputed_gradients(model, method)


class TestRefused:
    def test_without_peft_its_extra_is_named(self, monkeypatch):
        monkeypatch.setattr("dpstune.methods.lora.is_installed", lambda name: False)
        with pytest.raises(RequestError, match=r"^method lora needs PEFT: pip install 'dpstune\[lora\]'$"):
            build_method({"name": "lora"})

    def test_a_run_without_peft_writes_nothing(self, tiny_task, tmp_path, monkeypatch):
        monkeypatch.setattr("dpstune.methods.lora.is_installed", lambda name: False)
        with pytest.raises(RequestError, match="needs PEFT"):
            engine.train(load_recipe(str(tiny_task), method="lora"), output=tmp_path)
        assert not list(tmp_path.rglob("recipe.yaml"))

    @needs_peft
    def test_a_model_that_has_adapters_already(self):
        model, _ = attached()
        with pytest.raises(RequestError, match="the model has adapters of PEFT already; merge them first"):
            build_method({"name": "lora"}).attach(model, total_steps=1)

    @needs_peft
    def test_layers_that_share_a_weight(self):
        model = tiny_classifier()
        first, second = (layer.attention.self for layer in model.bert.encoder.layer[:2])
        second.query.weight = first.query.weight
        with pytest.raises(RequestError, match="lora's layers share a weight"):
            build_method({"name": "lora"}).attach(model, total_steps=1)

    @needs_peft
    def test_a_layer_whose_forward_is_replaced(self):
        model = tiny_classifier()
        build_method({"name": "mixout"}).attach(model, total_steps=1)
        before = list(model.modules())
        with pytest.raises(RequestError, match="replaced already, by another method or library"):
            build_method({"name": "lora"}).attach(model, total_steps=1)
        assert list(model.modules()) == before

    def test_averages_of_it(self):
        with pytest.raises(RequestError, match=r"method\.of: the weights that lora trains are not those it leaves"):
            load_recipe("demo", method="ema", overrides=["method.of=lora"])

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"r": 0}, "r: should be greater than or equal to 1"),
            ({"alpha": 0.0}, "alpha: should be greater than 0"),
            ({"dropout": 1.0}, "dropout: should be less than 1"),
            ({"target": "query"}, "target: should be 'query-value' or 'all-linear'"),
        ],
    )
    def test_bad_settings_are_one_line(self, settings, words):
        with pytest.raises(RequestError, match=words) as caught:
            build_method({"name": "lora", **settings})
        assert "\n" not in str(caught.value)


@needs_peft
@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_run_keeps_merged_weights_and_continues_from_adapted_ones(tiny_task, tmp_path, monkeypatch, keep):
    settings = ["training.eval_every=2", "training.save_every=5", "training.precision=fp32", "training.steps=12"]
    settings += ["training.learning_rate=0.03", "method.dropout=0.2", f"training.keep={keep}"]
    loaded = load_recipe(str(tiny_task), method="lora", overrides=settings)
    best, saved = {}, []
    save_best, save = BestWeights.save, Checkpoints.save

    def note_best(self, step, model):
        best[step] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        save_best(self, step, model)

    monkeypatch.setattr(BestWeights, "save", note_best)
    monkeypatch.setattr(
        Checkpoints,
        "save",
        lambda self, step, model, state: (saved.append(set(names(model))), save(self, step, model, state)),
    )
    run = engine.train(loaded, output=tmp_path / "straight")
    expected = load_file(run.folder / "model" / "model.safetensors")
    assert run.result["method_bytes"] == 4 * 8 * (16 + 16) * 2 * LAYERS
    assert not any("lora" in name or "base_layer" in name for name in expected)
    assert all(any("lora_A" in name for name in each) for each in saved)
    if keep == "best":
        kept = best[run.result["kept"]["step"]]
        assert all(torch.equal(kept[name], tensor) for name, tensor in expected.items())
    with monkeypatch.context() as patch:
        stop_within_an_evaluation(patch, after_step=4)
        with pytest.raises(Interrupted):
            engine.train(loaded, output=tmp_path / "stopped")
    again = engine.train(loaded, output=tmp_path / "stopped")
    found = load_file(again.folder / "model" / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert again.result["kept"] == run.result["kept"]
