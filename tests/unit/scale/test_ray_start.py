"""A cluster that cannot be reached or does not start is told in one line."""

import pytest

from t3d.errors import InputError
from t3d.scale import ray_workers
from t3d.scale.chunked import LOCAL, Workers


@pytest.mark.parametrize("kind", [ConnectionError, RuntimeError, Exception])
def test_whatever_ray_raises_at_the_start_is_one_line(monkeypatch, kind):
    def init(**how):
        raise kind("The current node timed out during startup. This could happen\nfor many reasons")

    monkeypatch.setattr(ray_workers.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_workers.ray, "init", init)
    monkeypatch.setattr(ray_workers, "LOCAL_ENVIRONMENT", {})
    workers = Workers(num_workers=1, address=LOCAL, cpus_per_worker=1, gpus_per_worker=None)
    text = (
        r"^address='local': no Ray cluster \(The current node timed out during startup\. This could happen\)"
    )
    with pytest.raises(InputError, match=text) as raised:
        ray_workers.make_on_ray(lambda: pytest.fail("prepared"), workers, "rollout")
    assert "\n" not in str(raised.value)
