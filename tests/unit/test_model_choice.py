"""What a model's name and folder tell: all that loads passes, what cannot load is refused by its flag."""

import pytest

from t3d.errors import InputError
from t3d.model_choice import BUNDLED_MODELS, check_dtype, check_model


@pytest.mark.parametrize("name", [*BUNDLED_MODELS, "org/name"])
def test_bundled_models_and_hub_ids_pass(name):
    check_model(name)


@pytest.mark.parametrize("file", ["config.json", "model.gguf"])
def test_a_folder_of_a_checkpoint_or_of_one_gguf_file_passes(tmp_path, file):
    (tmp_path / file).touch()
    check_model(str(tmp_path))


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ((), "has no config"),
        (("adapter_config.json",), "an adapter, without the model"),
        (("a.gguf", "b.gguf"), r"more than one GGUF file \(a.gguf, b.gguf\)"),
    ],
)
def test_another_folder_is_refused_by_the_flag_that_gave_it(tmp_path, files, problem):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"teacher='.*': .*{problem}"):
        check_model(str(tmp_path), "teacher")


@pytest.mark.parametrize("name", ["minni", "./nowhere", "~/nowhere", "a/b/c"])
def test_a_name_that_is_no_hub_id_is_refused(name):
    with pytest.raises(InputError, match=f"model='{name}': no such folder"):
        check_model(name)


def test_a_dtype_is_one_of_ours_or_of_the_caller_s():
    check_dtype("float32")
    check_dtype("auto", "auto")
    with pytest.raises(InputError, match=r"dtype='auto': not known\. Fix: use one of float64, float32"):
        check_dtype("auto")
