"""Fixtures shared by all tests: a tiny random SDAR in float64 and a checkpoint folder of it.

The tiny model's weights are drawn ten times wider than usual, so that its logits are peaked and
differ from position to position: a wrong mask or a stale key changes them by about one.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from transformers import PreTrainedTokenizerFast

from t3d.models.adopted import ARCHITECTURES
from t3d.models.loading import LoadedModel, load_model
from t3d.models.sdar import SDARConfig, SDARForCausalLM, SDARMoeConfig, SDARMoeForCausalLM
from t3d.tasks.mini.tokenizer import build_tokenizer

# The jaxtyping hook binds a dataclass's constructor by its fields, but a transformers config takes any
# further keyword as well (``model_type`` and others of a saved config.json): unwrap these.
for _config in (architecture.config for architecture in ARCHITECTURES.values()):
    if _config.__init__.__globals__["__name__"] == "jaxtyping._decorator":
        _config.__init__ = _config.__init__.__wrapped__  # type: ignore[method-assign]

settings.register_profile("t3d", deadline=None, derandomize=True, max_examples=40)
settings.register_profile("types", settings.get_profile("t3d"), max_examples=8)
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Few examples show whether annotations are true; many are for values."""
    settings.load_profile("types" if config.getoption("jaxtyping_packages") else "t3d")


@pytest.fixture(autouse=True)
def _fixed_torch_seed() -> None:
    torch.manual_seed(0)


def _tiny_config(**overrides: object) -> SDARConfig:
    fields: dict[str, object] = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
        "mask_token_id": 37,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    return SDARConfig(**(fields | overrides))


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., SDARConfig]:
    """Factory of the tiny model's config: 2 layers, hidden 32, vocabulary 40, mask id 37."""
    return _tiny_config


@pytest.fixture(scope="session")
def make_model() -> Callable[..., SDARForCausalLM]:
    """Factory of tiny random models: ``make_model(seed=0, dtype=torch.float64, **config_overrides)``."""

    def make(seed: int = 0, dtype: torch.dtype = torch.float64, **overrides: object) -> SDARForCausalLM:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = SDARForCausalLM(_tiny_config(**overrides))
        return model.to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def make_moe_model(tiny_config: Callable[..., SDARConfig]) -> Callable[..., SDARMoeForCausalLM]:
    """Factory of tiny random mixtures of 4 experts, 2 for each token."""

    def make(seed: int = 0, dtype: torch.dtype = torch.float64, **overrides: object) -> SDARMoeForCausalLM:
        sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        fields = tiny_config().to_dict() | sizes | overrides
        for name in ("model_type", "architectures", "layer_types", "transformers_version"):
            fields.pop(name, None)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = SDARMoeForCausalLM(SDARMoeConfig(**fields))
        return model.to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def tiny_model(make_model: Callable[..., SDARForCausalLM]) -> SDARForCausalLM:
    """One tiny random float64 model for all tests; do not change it."""
    return make_model()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level tokenizer with the SDAR family's special tokens and chat template."""
    return build_tokenizer(["how many apples are left now?", "so the answer is"])


@pytest.fixture(scope="session")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory,
    make_model: Callable[..., SDARForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """Folder of a saved tiny model with its tokenizer; do not change it (copy it first)."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny-sdar"
    model = make_model(
        dtype=torch.float32,
        vocab_size=len(tiny_tokenizer),
        mask_token_id=tiny_tokenizer.mask_token_id,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@cache
def _loaded(folder: Path, dtype: str) -> LoadedModel:
    return load_model(folder, device="cpu", dtype=dtype)


def load_copy(folder: Path, dtype: str = "float64") -> LoadedModel:
    """A loaded model of one's own, to train; copying takes a quarter of what loading does.

    The folder must not change while tests run, and the tokenizer, which all copies share, must not either.
    """
    loaded = _loaded(folder, dtype)
    return replace(loaded, model=deepcopy(loaded.model))


@pytest.fixture(scope="session")
def tiny_moe_model(make_moe_model: Callable[..., SDARMoeForCausalLM]) -> SDARMoeForCausalLM:
    """One tiny random float64 mixture of experts for all tests; do not change it."""
    return make_moe_model()


def _in_float64(norm: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """What transformers' RMSNorm computes; its own rounds to float32 inside, in float64 models too."""

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return (
            norm.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
        )

    return forward


def exact(model: torch.nn.Module, attention: float = 1.0) -> torch.nn.Module:
    """The model with norms in float64, so that two ways to run it differ by less than any draw notices.

    ``attention`` scales what attention adds to a token: at 0 no token depends on another.
    """
    for name, module in model.named_modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _in_float64(module)
        if name.endswith("o_proj"):
            module.weight.data *= attention
    return model


@pytest.fixture(scope="session")
def exact_model_with(make_model: Callable[..., SDARForCausalLM]) -> Callable[[float], SDARForCausalLM]:
    """Tiny models by how much their tokens depend on others (:func:`exact`); do not change them."""
    return cache(lambda attention: exact(make_model(), attention))


@pytest.fixture(scope="session")
def exact_model(exact_model_with: Callable[[float], SDARForCausalLM]) -> SDARForCausalLM:
    """The tiny model with norms in float64; do not change it."""
    return exact_model_with(1.0)


@pytest.fixture(scope="session")
def exact_moe_model(make_moe_model: Callable[..., SDARMoeForCausalLM]) -> SDARMoeForCausalLM:
    """The tiny mixture of experts with norms in float64; do not change it."""
    return exact(make_moe_model())
