import re
import subprocess
import sys
from contextlib import closing
from typing import ClassVar

import gymnasium
import numpy as np
import pytest

from suites import checks
from suites.catalog import load_suite
from suites.errors import EnvError, SuiteError
from suites.families import Family, Pictured, family, make_pictured
from suites.gymnasium_ids import _register_plugins
from suites.seeding import EpisodeSeed
from suites.spec import Protocol, Task
from suites.vector import VectorEnv

RULES = Protocol(name="short", action_repeat=1, decisions=30, score="return", low=-1, high=0)
FLOATS = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
LIMITS = gymnasium.spaces.Box(np.array([-1, 0], dtype=np.float32), np.array([1.1, 4], dtype=np.float32))


def task(name, rules=RULES, **options):
    return Task(name=name, family="gymnasium", protocol=rules, options=options)


def make(name, rules=RULES, **options):
    return family("gymnasium").make(task(name, rules, **options))


def seed(name="Pendulum-v1", episode=0):
    return EpisodeSeed("train", 0, name, episode)


class Probe(gymnasium.Env):
    """Shows what it is told, ends where it is told."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(
        self, observation=FLOATS, action=None, terminate=None, truncate=None, info=None, picture=None, render_mode=None
    ):
        self.render_mode, self._picture = render_mode, picture
        self.observation_space = observation
        self.action_space = action or LIMITS
        self._ends, self._info = (terminate, truncate), info or {}
        self.given = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.given = []
        return self.observation_space.sample(), {}

    def step(self, action):
        assert action in self.action_space
        self.given.append(action)
        terminated, truncated = (len(self.given) == end for end in self._ends)
        return self.observation_space.sample(), 1.0, terminated, truncated, self._info

    def render(self):
        assert self.render_mode == "rgb_array"
        return self._picture


@pytest.fixture(autouse=True)
def probe():
    gymnasium.register("Probe-v0", Probe, max_episode_steps=5)
    gymnasium.register("house/Probe-v0", Probe)
    yield
    del gymnasium.registry["Probe-v0"], gymnasium.registry["house/Probe-v0"]


def test_it_keeps_the_contract():
    found = family("gymnasium")
    assert isinstance(found, Family)
    assert {"Pendulum-v1", "HalfCheetah-v5"} <= set(found.tasks())
    assert not any("/" in name for name in found.tasks())


@pytest.mark.parametrize("name", ["Pendulum-v1", "MountainCarContinuous-v0", "HalfCheetah-v5", "Hopper-v5", "Probe-v0"])
def test_nothing_is_wrong_with_its_environments(name):
    findings = checks.examine(family("gymnasium"), task(name), 1)
    assert [finding for finding in findings if finding.fault] == []


def test_an_episode_is_the_packages_own_under_its_seed():
    theirs, ours = gymnasium.make("Pendulum-v1"), make("Pendulum-v1")
    expected, _ = theirs.reset(seed=seed().value)
    np.testing.assert_array_equal(ours.reset(seed()), expected)
    expected, reward, *_ = theirs.step(np.array([1.0], dtype=np.float32))  # of a range of ±2
    observation, *rest = ours.step(np.array([0.5], dtype=np.float32))
    np.testing.assert_array_equal(observation, expected)
    assert rest == [reward, False, False, None]


def test_the_protocols_limit_replaces_the_registered_one():
    env = make("Probe-v0")  # registered with 5 steps
    env.reset(seed())
    ends = [env.step(np.zeros(2, dtype=np.float32))[2:4] for _ in range(30)]
    assert ends == [(False, False)] * 29 + [(False, True)]


def test_termination_and_truncation_are_kept_apart():
    def ends(**options):
        env = make("Probe-v0", RULES.model_copy(update={"action_repeat": 2}), **options)
        env.reset(seed())
        return [env.step(np.zeros(2, dtype=np.float32))[1:4] for _ in range(2)]

    assert ends(terminate=4) == [(2.0, False, False), (2.0, True, False)]
    assert ends(truncate=3) == [(2.0, False, False), (1.0, False, True)]  # the repeat stops where the episode ends
    assert ends(terminate=3, truncate=3) == [(2.0, False, False), (1.0, True, False)]


def test_actions_are_rescaled_to_the_bounds():
    with closing(make("Probe-v0")) as env:
        env.reset(seed())
        for action, expected in (([1, -1], [1.1, 0.0]), ([0, 0.5], [0.05, 3.0])):
            env.step(np.array(action, dtype=np.float32))
            given = env._env.unwrapped.given[-1]
            assert given.dtype == np.float32
            np.testing.assert_allclose(given, expected, rtol=1e-6)
            np.testing.assert_array_equal(env.control()[2], given)


def test_rounding_leads_out_of_no_bounds():
    low, high = np.array([-3.0]), np.array([-0.9])
    assert low + (high - low) > high
    env = make("Probe-v0", action=gymnasium.spaces.Box(low, high, dtype=np.float64))
    env.reset(seed())
    env.step(np.ones(1, dtype=np.float32))  # the probe refuses what is outside
    np.testing.assert_array_equal(env.control()[2], high)


def test_a_dict_is_flattened_in_the_order_of_its_space():
    space = gymnasium.spaces.Dict({"b": FLOATS, "a": gymnasium.spaces.Box(5, 6, (3,))})
    env = make("Probe-v0", observation=space)
    assert env.spaces == ((5,), 2)
    observation = env.reset(seed())
    assert observation.dtype == np.float32
    assert ((observation[:3] >= 5) & (observation[:3] <= 6)).all()  # gymnasium sorts the keys: a before b
    assert (observation[3:] < 5).all()


def test_images_stay_images():
    env = make("Probe-v0", observation=gymnasium.spaces.Box(0, 255, (8, 6, 3), np.uint8))
    assert env.spaces == ((8, 6, 3), 2)
    assert env.reset(seed()).dtype == np.uint8
    assert checks.spaces_kept(family("gymnasium"), task("Probe-v0", observation=env._env.observation_space)) is None


@pytest.mark.parametrize(("key", "value"), [("success", True), ("is_success", 0.0), ("success", np.bool_(False))])
def test_success_comes_from_info(key, value):
    env = make("Probe-v0", info={key: value})
    env.reset(seed())
    assert env.step(np.zeros(2, dtype=np.float32))[4] is bool(value)


def test_scoring_a_success_that_is_not_reported_is_an_error():
    env = make("Probe-v0", RULES.model_copy(update={"score": "success_any"}))
    env.reset(seed())
    with pytest.raises(
        EnvError, match=r"scores success, but .* has neither 'success' nor 'is_success'; score 'return'"
    ):
        env.step(np.zeros(2, dtype=np.float32))


def test_a_name_of_ones_own_with_an_id():
    name = "pendulum-on-the-moon"
    light, heavy = make(name, id="Pendulum-v1", g=1.6), make(name, id="Pendulum-v1")
    np.testing.assert_array_equal(light.reset(seed(name)), heavy.reset(seed(name)))
    action = np.zeros(1, dtype=np.float32)
    assert not np.array_equal(light.step(action)[0], heavy.step(action)[0])
    assert make("probe", id="house/Probe-v0").spaces == ((2,), 2)


Box, Dict, Discrete = gymnasium.spaces.Box, gymnasium.spaces.Dict, gymnasium.spaces.Discrete


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("CartPole-v1", {}, r"found discrete actions Discrete\(2\); agents here act in continuous ones"),
        ("Probe-v0", {"action": Box(-np.inf, 1, (2,))}, "found actions without bounds"),
        ("Probe-v0", {"action": Box(-1, 1, (2, 2))}, "expected a Box of floats with one axis"),
        ("Probe-v0", {"observation": Discrete(5)}, r"found observations Discrete\(5\); expected a Box of floats"),
        ("Probe-v0", {"observation": Box(0, 1, (4, 4))}, "found observations Box"),
        ("Probe-v0", {"observation": Box(0, 255, (4,), np.uint8)}, "found observations Box"),
        ("Probe-v0", {"observation": Dict({"a": Discrete(2)})}, "found observations Discrete"),
        (
            "Probe-v0",
            {"observation": Dict({"a": Box(0, 255, (4, 4, 3), np.uint8)})},
            "expected vectors of floats alone",
        ),
        ("Pendulum-v1", {"gravity": 1}, r"'Pendulum-v1' cannot be made \(TypeError: .*'gravity'"),
        ("Pendulum-v1", {"max_episode_steps": 9}, "options may not have max_episode_steps; leave it out"),
        ("Pendulum-v1", {"render_mode": "human"}, "options may not have render_mode"),
        ("Pendulum-v11", {}, "unknown gymnasium id 'Pendulum-v11'; nearest: 'Pendulum-v1'"),
        ("Pendulum", {}, "unknown gymnasium id 'Pendulum'; nearest: 'Pendulum-v1'"),
        ("GymV26Environment-v0", {"env_id": "this:That-v0"}, "unknown gymnasium id 'GymV26Environment-v0'"),
        ("mine", {"id": 5}, "options.id is 5; expected an id such as Pendulum-v1"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(name, options, sentence):
    with pytest.raises(SuiteError, match=sentence):
        family("gymnasium").spaces(task(name, **options))


def test_an_id_imports_no_module(tmp_path, monkeypatch):
    (tmp_path / "intruder.py").write_text("raise SystemExit('ran code of a suite file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit):  # what gymnasium itself does with it
        gymnasium.make("intruder:Pendulum-v1")
    with pytest.raises(SuiteError, match="'intruder:Pendulum-v1' would import a module"):
        make("mine", id="intruder:Pendulum-v1")


SUITE = """\
name: ids
mode: per_task
protocol: {name: short-30, action_repeat: 1, decisions: 30, score: return, low: -1, high: 0}
tasks:
  - {family: gymnasium, names: [Pendulum-v1, Reacher-v5]}
  - {family: gymnasium, names: [moon], options: {id: Pendulum-v1, g: 1.6}}
budget: {env_steps: 100}
evaluation: {every: 100}
agents: {random: {}}
"""


def load(tmp_path, old="", new=""):
    assert old in SUITE
    path = tmp_path / "ids.yaml"
    path.write_text(SUITE.replace(old, new))
    return load_suite(str(path))


def test_a_suite_file_is_enough(tmp_path):
    loaded = load(tmp_path)
    assert [task.name for task in loaded.tasks] == ["Pendulum-v1", "Reacher-v5", "moon"]
    assert {task.protocol.name for task in loaded.tasks} == {"short-30"}
    with VectorEnv(loaded.tasks, 3, seed=0, stream="train") as env:
        step = env.reset()
        for _ in range(30):
            step = env.step(np.zeros((3, env.spec.action_dim), dtype=np.float32))
    assert [episode.length for episode in step.episodes] == [30, 30, 30]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[moon]", "[my/Moon-v0]", "beginning with a letter or digit; a gymnasium id with '/' goes into the group's"),
        ("Reacher-v5", "CartPole-v1", "ids.yaml:5:46: gymnasium task 'CartPole-v1': found discrete actions"),
        ("Reacher-v5", "Reacher-v55", "ids.yaml:5:46: unknown gymnasium id 'Reacher-v55'; nearest: 'Reacher-v5'"),
        ("id: Pendulum-v1", "id: 'os:Pendulum-v1'", "would import a module"),
        ("id: Pendulum-v1, ", "", "unknown gymnasium id 'moon'"),
        (SUITE[SUITE.index("protocol") : SUITE.index("tasks")], "", "'gymnasium' has no protocol of its own; expected"),
    ],
)
def test_a_faulty_suite_is_refused_where_it_is_read(tmp_path, old, new, sentence):
    with pytest.raises(SuiteError, match=re.escape(sentence)):
        load(tmp_path, old, new)


PLUGIN = """\
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv


def register():
    gymnasium.register("plugged/Pendulum-v0", PendulumEnv)
"""


def install(folder, value, code):
    information = folder / "plugged-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[gymnasium.envs]\nplugged = {value}\n")
    (folder / "plugged.py").write_text(code)


@pytest.mark.parametrize("value", ["plugged:register", "plugged"])
def test_installed_packages_register_their_ids(tmp_path, value):
    install(tmp_path, value, PLUGIN if ":" in value else f"{PLUGIN}\n\nregister()\n")
    program = "from tests.suites.test_gymnasium_ids import make; print(make('mine', id='plugged/Pendulum-v0').spaces)"
    environment = {"PYTHONPATH": f"{tmp_path}:{':'.join(path for path in sys.path if path)}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "TaskSpaces(observation=(3,), action=1)\n", done.stderr


def test_a_package_that_fails_to_register_is_named_and_the_others_work(tmp_path, monkeypatch):
    install(tmp_path, "plugged:register", "import a_module_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    _register_plugins.cache_clear()
    try:
        with pytest.raises(SuiteError, match=r"unknown .*; the ids of plugged:register are missing \(ModuleNotFound"):
            make("mine", id="plugged/Pendulum-v0")
        assert make("Pendulum-v1").spaces == ((3,), 1)
    finally:
        _register_plugins.cache_clear()


def pictured(picture, height, width):
    env = make_pictured(task("Probe-v0", picture=picture))
    env.reset(seed("Probe-v0"))
    return env.picture(height, width)


def test_a_picture_keeps_its_proportions():
    wide = np.full((2, 4, 3), 7, np.uint8)
    wide[0, 0] = 9
    # 2 x 4 in 8 x 8: twice as large is 4 x 8, with two black rows above and below
    shown = pictured(wide, 8, 8)
    assert shown.shape == (8, 8, 3)
    assert shown[:2].max() == shown[6:].max() == 0
    assert shown[2:6, :, 0].tolist() == [[9, 9, *[7] * 6]] * 2 + [[7] * 8] * 2
    # in 1 x 4: half as large is 1 x 2, rows and columns 1 and 3 of the four, with a black column on each side
    assert pictured(wide, 1, 4)[0, :, 0].tolist() == [0, 7, 7, 0]


@pytest.mark.parametrize(
    ("picture", "found"), [(None, "object"), (np.zeros((2, 2), np.uint8), r"uint8 \(2, 2\)"), ("no display", "<U10")]
)
def test_what_is_no_picture_is_refused(picture, found):
    with pytest.raises(EnvError, match=f"found pictures of {found}.*; expected uint8 with the shape"):
        pictured(picture, 8, 8)


def test_a_renderer_that_fails_says_why(monkeypatch):
    def fail(self):
        raise RuntimeError("no display")

    monkeypatch.setattr(Probe, "render", fail)
    with pytest.raises(EnvError, match="nothing can be rendered \\(RuntimeError: no display\\)"):
        pictured(None, 8, 8)


def test_what_is_made_to_be_seen_goes_the_same_way():
    plain, seen = family("gymnasium").make(task("HalfCheetah-v5")), make_pictured(task("HalfCheetah-v5"))
    assert isinstance(seen, Pictured)
    assert not isinstance(plain, Pictured)
    assert (plain.reset(seed("HalfCheetah-v5")) == seen.reset(seed("HalfCheetah-v5"))).all()
    for _ in range(3):
        (a, *others), (b, *same) = (env.step(np.full(6, 0.5, np.float32)) for env in (plain, seen))
        assert (a == b).all()
        assert others == same
