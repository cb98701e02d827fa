"""Settings of a demo: which methods it has, and where the other presets are trained."""

import pytest

from t3d.errors import InputError
from t3d.reproduce.demo_config import DemoConfig
from t3d.training.presets import PRESETS

METHODS = ("t3d", "t3d-plus", "naive_td")


def demo(method):
    return DemoConfig(output="out", method=method)


@pytest.mark.parametrize("method", METHODS)
def test_its_methods_are_presets(method):
    assert method in PRESETS and demo(method).count_rounds >= 2


@pytest.mark.parametrize("method", [name for name in PRESETS if name not in METHODS])
def test_another_preset_is_refused_with_the_command_that_trains_it(method):
    command = "train" if method in ("sft", "sft_dllm_rl", "drafter") else "distil"
    with pytest.raises(InputError, match="use one of t3d, t3d-plus, naive_td, or train it") as found:
        demo(method)
    assert f"t3d {command} --model mini --preset {method}" in found.value.fix


def test_a_name_that_is_no_preset_is_refused():
    with pytest.raises(
        InputError, match=r"method='t4d': not known\. Fix: use one of t3d, t3d-plus, naive_td\."
    ):
        demo("t4d")
