"""YAML that says two things, or another than it seems to."""

import pytest
import yaml

from t3d.field_types import read_file_value, read_value


@pytest.mark.parametrize("read", [read_value, read_file_value])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nlimit: 2\nseed: 3", "seed stands twice"),
        ("seed: 010", "010 begins with 0"),
        ("a: {b: 1, b: 2}", "b stands twice"),
    ],
)
def test_what_yaml_would_read_in_its_own_way_is_refused(read, text, message):
    with pytest.raises(yaml.YAMLError, match=message):
        read(text)


def test_other_values_are_as_before():
    assert read_file_value("a: 10\nb: 0\nc: -5\nd: 1e5\ne: [0.5, x]") == {
        "a": 10,
        "b": 0,
        "c": -5,
        "d": "1e5",
        "e": [0.5, "x"],
    }
    assert read_value("1e5") == 1e5
