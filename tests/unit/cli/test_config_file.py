import threading
from concurrent.futures import ThreadPoolExecutor

from t3d.cli.config_file import write_config
from t3d.cli.rollout import Rollout


def test_several_processes_may_write_the_same_settings_at_once(tmp_path):
    """As shards do that find their output finished."""
    command = Rollout(model="m", prompts="p", output="o")
    together = threading.Barrier(4, timeout=20)

    def write(_):
        for number in range(50):
            together.wait()
            write_config(command, tmp_path / f"{number}.yaml")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(list(tmp_path.glob("*"))) == 50 and not list(tmp_path.glob(".*"))
