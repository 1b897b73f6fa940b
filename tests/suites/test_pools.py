import numpy as np
import pytest

from suites import pools
from suites.dm_control import DMC28
from suites.errors import EnvError
from suites.metaworld import MT50
from suites.pools import PARTS, flat, load, make_pool, pool_id
from tests.suites.tasks import task

pytest.importorskip("envpool", reason="the optional package envpool is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:`in1d` is deprecated")


def test_every_task_has_a_copy():
    known = set(load().list_all_envs())
    tasks = [task("metaworld", name) for name in MT50] + [task("dm_control", name) for name in DMC28]
    assert [found.name for found in tasks if pool_id(found) not in known] == []


@pytest.mark.parametrize("name", sorted({*DMC28, *PARTS}))
def test_observations_have_the_parts_of_the_package_in_its_order(name, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    from dm_control import suite

    wanted = suite.load(*name.split("-", 1)).observation_spec()
    shown = load().make_spec(pool_id(task("dm_control", name))).observation_space
    assert list(PARTS.get(name, shown)) == list(wanted)
    assert {part: int(np.prod(shown[part].shape)) for part in wanted} == {
        part: int(np.prod(spec.shape)) for part, spec in wanted.items()
    }


def test_flat_puts_the_parts_in_order_and_drops_what_the_task_does_not_show():
    shown = {"velocity": np.ones((2, 3)), "position": np.zeros((2, 2)), "upright": np.full(2, 7.0)}
    assert flat(shown, "walker-walk")[0].tolist() == [1, 1, 1, 0, 0, 7]
    assert flat(shown, "humanoid-run_pure_state")[0].tolist() == [0, 0, 1, 1, 1]


def test_a_pool_that_cannot_be_made_is_named(monkeypatch):
    monkeypatch.setattr(pools, "pool_id", lambda task: "WalkerFall-v1")
    with pytest.raises(EnvError, match="EnvPool cannot make walker-walk"):
        make_pool(task("dm_control", "walker-walk"), [0], 1)
