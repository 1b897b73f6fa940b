import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from suites import dm_control_pixels
from suites.catalog import load_suite
from suites.dm_control import TASKS
from suites.errors import EnvError, SuiteError
from suites.families import family
from suites.protocols import protocol
from suites.seeding import EpisodeSeed
from suites.spec import Task, TaskSpaces
from suites.vector import VectorEnv, env_spec

pytestmark = pytest.mark.filterwarnings("ignore:`in1d` is deprecated")

PIXELS = {"observation": "pixels"}
ROOT = Path(__file__).parents[2]


def task(name, options=PIXELS, rules="dmc-pixels"):
    return Task(name=name, family="dm_control", protocol=protocol(rules), options=options)


def seed(name, episode=0):
    return EpisodeSeed("train", 0, name, episode)


@pytest.fixture(scope="module")
def renderer():
    try:
        dm_control_pixels.open_renderer()
    except EnvError as error:
        pytest.skip(str(error))


@pytest.fixture
def make(renderer):
    made = []

    def of(name, options=PIXELS):
        made.append(family("dm_control").make(task(name, options)))
        return made[-1]

    yield of
    for env in made:
        env.close()


def play(env, name, episode=0, steps=10):
    """Images of an episode's beginning, under actions that move everything."""
    actions = np.random.default_rng(0).choice([-1.0, 1.0], size=(steps, env.spaces.action)).astype(np.float32)
    return np.array([env.reset(seed(name, episode)), *(env.step(action)[0] for action in actions)])


@pytest.mark.parametrize("task", load_suite("dmc-pixels").tasks, ids=lambda task: task.name)
def test_images_show_what_happens_and_reset_is_pure(task, make):
    env = make(task.name, task.options)
    images = play(env, task.name)
    assert env.spaces == family("dm_control").spaces(task) == TaskSpaces((64, 64, 3), TASKS[task.name][1])
    assert (images.shape[1:], images.dtype) == ((64, 64, 3), np.uint8)
    assert images.mean() > 20, "the images are black"
    assert all(np.unique(image.reshape(-1, 3), axis=0).shape[0] > 20 for image in images), "the images are plain"
    assert not np.array_equal(images[0], images[-1]), "nothing moves"
    other = play(env, task.name, episode=1)
    np.testing.assert_array_equal(play(env, task.name), images)
    assert not np.array_equal(other[0], images[0]), "two episodes began alike"


def test_the_same_happens_as_with_states(make):
    pixels = make("cartpole-swingup")
    state = family("dm_control").make(
        Task(name="cartpole-swingup", family="dm_control", protocol=protocol("dmc-1000", action_repeat=2))
    )
    pixels.reset(seed("cartpole-swingup")), state.reset(seed("cartpole-swingup"))
    for _ in range(3):
        action = np.array([0.7], dtype=np.float32)
        assert pixels.step(action)[1:] == state.step(action)[1:]


def test_images_are_those_of_the_usual_camera_and_size(make):
    # quadruped's camera 0 looks on from far away
    for name, camera in (("walker-walk", 0), ("quadruped-walk", 2)):
        env = make(name, {**PIXELS, "size": 32})
        image = env.reset(seed(name))
        assert image.shape == env.spaces.observation == (32, 32, 3)
        np.testing.assert_array_equal(image, env._env.physics.render(32, 32, camera_id=camera))
        assert not np.array_equal(image, env._env.physics.render(32, 32, camera_id=1 - camera // 2))


def test_a_runner_sees_the_floor_behind_the_suites_end(make):
    """Backwards tasks lengthen it: at -20 m walker's own floor has ended, and what is below is the sky."""
    lower_half = {}
    for name in ("walker-walk", "walker-walk_backwards"):
        physics = make(name)._env.physics
        physics.reset()
        physics.named.data.qpos["rootx"] = -20
        physics.forward()
        lower_half[name] = physics.render(64, 64, camera_id=0)[48:].astype(float)
    assert np.abs(lower_half["walker-walk"] - lower_half["walker-walk_backwards"]).mean() > 10


@pytest.mark.slow
def test_a_worker_process_renders_the_same(renderer):
    tasks = [task("reacher-easy", {**PIXELS, "size": 16})]

    def images(num_processes):
        with VectorEnv(tasks, 2, seed=0, stream="train", num_processes=num_processes) as env:
            first = env.reset().observation.copy()
            return first, env.step(np.ones((2, 2), dtype=np.float32)).observation.copy()

    for one, two in zip(images(1), images(2), strict=True):
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, two)


STATES_THEN_IMAGES = """
import os, sys
from tests.suites.tasks import task as state_task
from tests.suites.test_dm_control_pixels import family, seed, task
state, pixels = state_task("dm_control", "cartpole-swingup"), task("cartpole-swingup")
for renderer, each in (("disabled", state), (sys.argv[1], pixels)):
    os.environ["MUJOCO_GL"] = renderer
    env = family("dm_control").make(each)
    observation = env.reset(seed("cartpole-swingup"))
    env.close()
assert observation.shape == (64, 64, 3)
assert observation.mean() > 20
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", dm_control_pixels.RENDERERS)
def test_a_process_may_hold_states_before_images_and_ends_in_silence(name, monkeypatch):
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)  # set by the renderer of this process
    if (reason := dm_control_pixels._probe(name)) is not None:
        pytest.skip(f"{name} does not work here: {reason}")
    command = [sys.executable, "-c", STATES_THEN_IMAGES, name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_renderer_the_sentence_names_the_packages(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    monkeypatch.setattr(dm_control_pixels, "PROBE", "raise ImportError('no such library')")
    with pytest.raises(EnvError) as caught:
        dm_control_pixels.open_renderer.__wrapped__()
    assert str(caught.value) == (
        "images need a renderer, and none works (egl: ImportError: no such library; osmesa: ImportError: no such "
        "library); install the Debian package libegl1 (MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa)"
    )
    assert os.environ["MUJOCO_GL"] == "disabled", "later tasks would look for a renderer"


def test_a_renderer_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(dm_control_pixels, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(dm_control_pixels, "PROBE_SECONDS", 1)
    with pytest.raises(EnvError, match=r"none works \(egl: no answer within 1 s\)"):
        dm_control_pixels.open_renderer.__wrapped__()


@pytest.mark.parametrize(
    ("options", "rules", "sentence"),
    [
        ({"observations": "pixels"}, "dmc-pixels", "unknown option of dm_control tasks 'observations'; nearest: 'obse"),
        ({"observation": "rgb"}, "dmc-pixels", "observation: found 'rgb'; expected 'state' or 'pixels'"),
        ({**PIXELS, "size": 0}, "dmc-pixels", "size: found 0; expected a whole number of pixels from 1 to 480"),
        ({**PIXELS, "size": 481}, "dmc-pixels", "size: found 481; expected a whole number"),
        ({**PIXELS, "size": True}, "dmc-pixels", "size: found True; expected a whole number"),
        ({"size": 64}, "dmc-1000", "size: a state has none; expected 'observation: pixels' beside it"),
        (PIXELS, "dmc-1000", "pixels are not scored by 'dmc-1000'; expected 'dmc-pixels'"),
        ({}, "dmc-pixels", "protocol 'dmc-pixels' needs the options {observation: pixels}; found a state"),
    ],
)
def test_options_that_cannot_be_are_refused(options, rules, sentence):
    with pytest.raises(SuiteError) as caught:
        family("dm_control").spaces(task("walker-walk", options, rules))
    assert sentence in str(caught.value)


def test_states_are_what_a_task_shows_otherwise():
    assert family("dm_control").spaces(task("walker-walk", {"observation": "state"}, "dmc-1000")).observation == (24,)


def test_a_joint_suite_of_images_is_not_padded():
    spec = env_spec([task("walker-walk"), task("reacher-easy")])
    assert (spec.observation_shape, spec.observation_dtype, spec.action_dim) == ((64, 64, 3), "uint8", 6)
    assert spec.observation_mask.all()
