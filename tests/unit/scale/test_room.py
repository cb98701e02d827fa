"""Workers that no machine could ever hold are refused, and those that wait for one are not."""

import pytest

from t3d.errors import InputError
from t3d.scale import room
from t3d.scale.chunked import LOCAL, Workers


@pytest.fixture
def checked(monkeypatch):
    def checked(machines, num_workers=1, num_cpus=1, num_gpus=0.0, *, address="auto", may_grow=False):
        nodes = [{"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}} for cpus, gpus in machines]
        nodes.append({"Alive": False, "Resources": {"CPU": 100.0, "GPU": 100.0}})
        monkeypatch.setattr(room.ray, "nodes", lambda: nodes)
        how = {"num_workers": num_workers, "cpus_per_worker": num_cpus, "gpus_per_worker": None}
        room.check_room(Workers(address=address, **how), num_gpus, may_grow=may_grow)

    return checked


@pytest.mark.parametrize(
    ("machines", "num_cpus", "num_gpus", "held"),
    [
        ([(2.0, 0.0)], 1, 0, 2),
        ([(2.0, 0.0)], 3, 0, 0),
        ([(2.0, 0.0), (3.0, 0.0)], 2, 0, 2),
        ([(2.0, 0.0), (2.0, 0.0)], 3, 0, 0),
        ([(8.0, 1.0)], 1, 1, 1),
        ([(8.0, 1.0)], 1, 0.25, 4),
        ([(99.0, 10.0)], 1, 0.1, 99),
        ([(8.0, 2.0)], 1, 0.4, 4),
        ([(16.0, 4.0)], 2, 2, 2),
        ([(16.0, 3.0)], 2, 2, 1),
        ([(16.0, 3.0), (16.0, 1.0)], 2, 2, 1),
        ([(3.0, 4.0)], 2, 2, 1),
        ([(8.0, 0.0)], 1, 1, 0),
        ([], 1, 0, 0),
    ],
)
def test_what_machines_have_says_how_many_workers_they_hold(checked, machines, num_cpus, num_gpus, held):
    if held:
        checked(machines, held, num_cpus, num_gpus, address=LOCAL)
    with pytest.raises(InputError, match=f"num_workers={held + 1}: with .* there is room for {held} on all"):
        checked(machines, held + 1, num_cpus, num_gpus, address=LOCAL)


def test_a_shared_cluster_is_refused_only_if_it_can_hold_none(checked, caplog):
    checked([(2.0, 0.0)], 3)
    assert "num_workers=3: with 1 cores and 0 GPUs each there is room for 2" in caplog.text
    with pytest.raises(InputError, match=r"room for 0 on all machines \(2 cores, 0 GPUs\)\. Fix: use fewer"):
        checked([(2.0, 0.0)], 3, num_cpus=4)
    caplog.clear()
    checked([(2.0, 0.0)], 3, num_cpus=4, may_grow=True)
    assert "room for 0" in caplog.text


def test_more_threads_than_cores_are_told_of_in_a_cluster_of_the_commands_own(checked, monkeypatch, caplog):
    monkeypatch.setattr(room.os, "cpu_count", lambda: 2)
    checked([(2.0, 0.0)], 2, address=LOCAL)
    checked([(4.0, 0.0)], 4)
    assert not caplog.text
    checked([(4.0, 0.0)], 4, address=LOCAL)
    assert "num_workers=4: 2 cores for 4 threads" in caplog.text
