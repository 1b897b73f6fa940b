"""The contract of :class:`m3po.api.Agent` as a battery of tests, for our agents and for anybody's::

    from m3po.testing import check_agent


    def test_my_agent():
        check_agent(MyAgent, MyAgent.Config(batch=8, warmup=10))

Give a configuration so small that the agent updates within ``DECISIONS`` decisions of ``NUM_ENVS`` environments; each
agent lives through that about eight times.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import math
import pickletools
import random
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from m3po.api import Agent, AgentConfig, Carry, Decision, Diagnosed, EnvSpec, Transition, transition
from suites.spec import VectorStep

__all__ = ["DECISIONS", "NUM_ENVS", "check_agent"]

NUM_ENVS = 3
DECISIONS = 32
# Agents are saved after so many decisions: primes, so that they fall inside rollouts, batches and episodes.
_SAVE_AFTER = (7, 19)
# What every agent has, in the order of the protocol that says so.
_MEMBERS = tuple(name for name in (*Agent.__annotations__, *vars(Agent)) if not name.startswith("_"))
# Rows of one batch may be rounded differently; a forgotten carry moves an action by much more.
_ROUNDING = 1e-4
_PICKLE_SUFFIXES = {".pkl", ".pickle", ".pt", ".pth", ".joblib"}

Make = Callable[[int], Agent]


def check_agent(
    agent_class: type[Any],
    config: AgentConfig | None = None,
    *,
    device: str = "cpu",
    learns: bool = True,
    images: bool = False,
) -> None:
    """Raise ``AssertionError`` naming the first clause of the contract that ``agent_class`` breaks.

    ``config`` defaults to the agent's own defaults; ``learns=False`` is for agents that never update. The environments
    are synthetic: one task, and three tasks of different sizes, all with terminations and truncations; with ``images``,
    for agents that see them, tasks of images too.
    """
    config = _check_config(agent_class, config)
    _check_constructor(agent_class)
    for spec in (_spec((4,), (2,)), _spec((5, 3, 2), (1, 3, 2)), *((_image_spec((1, 3)),) if images else ())):

        def make(seed: int, spec: EnvSpec = spec) -> Agent:
            agent: Agent = agent_class(spec, config, seed=seed, device=device)
            missing = [name for name in _MEMBERS if not hasattr(agent, name)]
            _require(
                not missing,
                f"{agent_class.__name__} lacks {', '.join(missing)}; m3po.api.Agent says what each member does",
            )
            return agent

        reference = _check_seeds(make, spec)
        _require(
            not learns or any(record.metrics for record in reference),
            f"update returned {{}} throughout {DECISIONS} decisions of {NUM_ENVS} environments, so learning was not "
            "tested; give a smaller configuration, or learns=False",
        )
        _check_evaluation(make, spec, reference)
        _check_carry(make, spec)
        _check_padding(make, spec, reference)
        _check_save_and_load(make, spec, reference)


def _require(holds: bool, sentence: str) -> None:
    # Not the assert statement, which python -O leaves out.
    if not holds:
        raise AssertionError(sentence)


class _Record(NamedTuple):
    """What an agent did in one turn of the training loop."""

    action: NDArray[np.float32]
    metrics: dict[str, float]


def _same(records: list[_Record], others: list[_Record]) -> bool:
    pairs = zip(records, others, strict=True)
    return all(np.array_equal(a.action, b.action) and a.metrics == b.metrics for a, b in pairs)


class _FakeEnv:
    """A noisy linear system that actions push. Every fourth episode terminates early, the others are truncated.

    Padded entries of observations are normal noise of deviation ``padding``; the rest does not depend on it.
    """

    def __init__(self, spec: EnvSpec, num_envs: int = NUM_ENVS, padding: float = 0.0) -> None:
        self.spec = spec
        self.task = np.arange(num_envs, dtype=np.int64) % spec.num_tasks
        self.padding = padding
        self.images = len(spec.observation_shape) > 1
        self.generator = np.random.default_rng(12)
        self.padding_generator = np.random.default_rng(13)
        self.age = np.zeros(num_envs, np.int64)
        self.episode = np.arange(num_envs)
        self.state = self._normal(self.generator)

    def reset(self) -> VectorStep:
        none = np.zeros(len(self.task), np.bool_)
        observation = self._observation()
        reward = np.zeros(len(self.task), np.float32)
        return VectorStep(observation, observation.copy(), reward, none, none.copy(), ~none, self.task.copy())

    def step(self, action: NDArray[np.float32]) -> VectorStep:
        push = action.mean(axis=1, keepdims=True)
        self.state = 0.9 * self.state + 0.3 * push + 0.1 * self._normal(self.generator)
        self.age += 1
        terminated = (self.episode % 4 == 3) & (self.age == 3)
        truncated = (self.age == self.spec.max_episode_steps[self.task]) & ~terminated
        ended = terminated | truncated
        reward = -np.square(self.state[:, 0]).astype(np.float32)
        next_observation = self._observation()
        self.state = np.where(ended[:, None], self._normal(self.generator), self.state)
        observation = next_observation.copy()
        observation[ended] = self._observation()[ended]
        self.age[ended] = 0
        self.episode[ended] += 1
        return VectorStep(observation, next_observation, reward, terminated, truncated, ended, self.task.copy())

    def _observation(self) -> NDArray[Any]:
        if self.images:
            colour = (128 + 64 * self.state[:, :3]).clip(0, 255).astype(np.uint8)
            return np.broadcast_to(colour[:, None, None], (len(colour), *self.spec.observation_shape)).copy()
        padding = self.padding * self._normal(self.padding_generator)
        return np.where(self.spec.observation_mask[self.task], self.state, padding).astype(np.float32)

    def _normal(self, generator: np.random.Generator) -> NDArray[np.float64]:
        return generator.normal(size=(len(self.task), 3 if self.images else self.spec.observation_size))


class _Session:
    """An agent in an environment, at one moment of the training loop."""

    def __init__(self, agent: Agent, spec: EnvSpec, padding: float = 0.0) -> None:
        self.agent = agent
        self.env = _FakeEnv(spec, padding=padding)
        self.step = self.env.reset()
        self.carry = agent.initial_carry(NUM_ENVS)

    def run(self, decisions: int = DECISIONS) -> list[_Record]:
        """Go on for so many turns, checking what every turn must fulfil."""
        return [self._turn() for _ in range(decisions)]

    def _turn(self) -> _Record:
        decision = _act(self.agent, self.env.spec, self.carry, self.step, explore=True)
        following = self.env.step(decision.action)
        experience = transition(self.step, decision, following)
        before = _copies(experience)
        self.agent.observe(experience)
        metrics = self.agent.update()
        _check_unchanged("observe or update", experience, before)
        _check_metrics(metrics)
        self.step, self.carry = following, decision.carry
        return _Record(decision.action.copy(), dict(metrics))

    def resumed(self, agent: Agent, carry: Carry) -> _Session:
        """The same moment with another agent, in a copy of the environment."""
        session = copy.copy(self)
        session.agent, session.carry, session.env = agent, carry, copy.deepcopy(self.env)
        return session


def _spec(observation_sizes: tuple[int, ...], action_sizes: tuple[int, ...]) -> EnvSpec:
    D, A, K = max(observation_sizes), max(action_sizes), len(observation_sizes)
    return EnvSpec(
        observation_shape=(D,),
        observation_dtype="float32",
        action_dim=A,
        observation_mask=np.arange(D) < np.array(observation_sizes)[:, None],
        action_mask=np.arange(A) < np.array(action_sizes)[:, None],
        max_episode_steps=np.array([11, 7, 5][:K], np.int64),
        action_repeat=np.ones(K, np.int64),
        task_names=tuple(f"task-{k}" for k in range(K)),
    )


def _image_spec(action_sizes: tuple[int, ...]) -> EnvSpec:
    shape = (64, 64, 3)
    plain = _spec((math.prod(shape),) * len(action_sizes), action_sizes)
    return dataclasses.replace(plain, observation_shape=shape, observation_dtype="uint8")


def _act(agent: Agent, spec: EnvSpec, carry: Carry, step: VectorStep, *, explore: bool) -> Decision:
    """The agent's decision, checked."""
    before = _copies(step)
    decision = agent.act(carry, step.observation, step.first, step.task, explore=explore)
    _check_unchanged("act", step, before)
    _check_action(decision.action, spec.action_mask[step.task], f"act(explore={explore})")
    return decision


def _check_config(agent_class: type[Any], config: AgentConfig | None) -> AgentConfig:
    name = agent_class.__name__
    config_class: Any = getattr(agent_class, "Config", None)
    _require(
        isinstance(config_class, type) and issubclass(config_class, AgentConfig),
        f"{name}.Config must be a subclass of m3po.api.AgentConfig, found {config_class!r}",
    )
    config = config or config_class()
    try:
        config_class.model_validate({"no_such_key": 1})
    except ValidationError:
        pass
    else:
        raise AssertionError(f"{name}.Config accepts the unknown key 'no_such_key'; keep extra='forbid'")
    _require(
        config_class.model_config.get("frozen"), f"{name}.Config can be changed after it is made; keep frozen=True"
    )
    _require(
        config_class.model_validate_json(config.model_dump_json()) == config,
        f"{name}.Config changes when written as JSON and read again",
    )
    return config


def _check_constructor(agent_class: type[Any]) -> None:
    signature = inspect.signature(agent_class)
    try:
        signature.bind("spec", "config", seed=0, device="cpu")
    except TypeError as error:
        name = agent_class.__name__
        raise AssertionError(
            f"{name} must be made by {name}(spec, config, seed=…, device=…), found {name}{signature}: {error}"
        ) from None


def _check_action(action: Any, mask: NDArray[np.bool_], call: str) -> None:
    found = f"{action.dtype} {action.shape}" if isinstance(action, np.ndarray) else type(action).__name__
    _require(
        isinstance(action, np.ndarray) and action.dtype == np.float32 and action.shape == mask.shape,
        f"{call} must return an action array float32 {mask.shape}, found {found}",
    )
    _require(np.isfinite(action).all(), f"{call} returned an action that is not finite")
    _require(
        (np.abs(action) <= 1).all(),
        f"{call} returned an action outside [-1, 1]: {action.flat[np.abs(action).argmax()]}",
    )
    _require((action[~mask] == 0).all(), f"{call} must return 0 in action entries the task does not have")


def _check_metrics(metrics: Any) -> None:
    for name, value in dict(metrics).items():
        _require(
            isinstance(value, float) and math.isfinite(value),
            f"update must return finite floats, found {name} = {value!r} ({type(value).__name__})",
        )


def _check_unchanged(call: str, given: VectorStep | Transition, before: Mapping[str, NDArray[Any]]) -> None:
    for name, value in _arrays(given).items():
        # Bytes, because an agent may keep NaN in its extras.
        _require(value.tobytes() == before[name].tobytes(), f"{call} changed the array {name} it was given")


def _copies(given: VectorStep | Transition) -> dict[str, NDArray[Any]]:
    return {name: value.copy() for name, value in _arrays(given).items()}


def _arrays(given: VectorStep | Transition) -> dict[str, NDArray[Any]]:
    extras = given.extras if isinstance(given, Transition) else {}
    arrays = {**vars(given), **{f"extras[{name!r}]": value for name, value in extras.items()}}
    return {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}


def _check_seeds(make: Make, spec: EnvSpec) -> list[_Record]:
    """Randomness comes from the seed alone. Returns the training that the other clauses compare with."""
    with _global_generators(1):
        reference = _Session(make(0), spec).run()
    with _global_generators(2):
        again = _Session(make(0), spec).run()
    _require(_same(reference, again), "two agents with the same seed did not do the same")
    other = _Session(make(1), spec).run()
    _require(
        not all(np.array_equal(a.action, b.action) for a, b in zip(reference, other, strict=True)),
        "agents with seeds 0 and 1 chose the same actions",
    )
    return reference


@contextmanager
def _global_generators(seed: int) -> Iterator[None]:
    """Seed the global generators, check that nobody draws from them inside, and put them back."""
    # An agent that uses torch has imported it by now; for the others it need not be there.
    torch = sys.modules.get("torch")

    def states() -> tuple[Any, ...]:
        numpy_state: Any = np.random.get_state()
        return (
            random.getstate(),
            (numpy_state[1].tobytes(), *numpy_state[2:]),
            torch and torch.get_rng_state().numpy().tobytes(),
        )

    saved = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    if torch:
        torch.manual_seed(seed)
    before = states()
    try:
        yield
        for name, old, new in zip(("random", "numpy.random", "torch"), before, states(), strict=True):
            _require(old == new, f"the agent moved the global generator of {name}; draw from one made from the seed")
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        if torch:
            torch.set_rng_state(saved[2])


def _check_evaluation(make: Make, spec: EnvSpec, reference: list[_Record]) -> None:
    session = _Session(make(0), spec)
    env = _FakeEnv(spec, NUM_ENVS + 1)
    step, carry = env.reset(), session.agent.initial_carry(NUM_ENVS + 1)
    for turn in range(DECISIONS):
        _require(
            _same(session.run(1), reference[turn : turn + 1]),
            "act(explore=False) or diagnose changed the training that followed; evaluation must neither draw from the "
            "training generators nor update statistics",
        )
        if turn % 3 == 0:
            decision = _act(session.agent, spec, carry, step, explore=False)
            again = _act(session.agent, spec, carry, step, explore=False)
            _require(
                np.array_equal(decision.action, again.action),
                "act(explore=False) chose two actions for one observation and one carry; it must be deterministic and "
                "must not change the carry it is given",
            )
            step, carry = env.step(decision.action), decision.carry
            if isinstance(session.agent, Diagnosed):
                _check_diagnostics(session.agent, spec)


def _check_diagnostics(agent: Diagnosed, spec: EnvSpec) -> None:
    """That they are shaped as they say; that looking changes nothing shows in the training that follows."""
    for name, shown in agent.diagnose().items():
        sizes = {"task": spec.num_tasks, "horizon": None}
        _require(
            set(shown.axes) <= set(sizes) and len(shown.axes) == shown.values.ndim,
            f"diagnose: {name} has the axes {shown.axes} and values of shape {shown.values.shape}; give one of "
            f"{', '.join(map(repr, sizes))} for each",
        )
        _require(
            all(sizes[axis] in (None, size) for axis, size in zip(shown.axes, shown.values.shape, strict=True)),
            f"diagnose: {name} has shape {shown.values.shape} along {shown.axes}; there are {spec.num_tasks} tasks",
        )


def _check_carry(make: Make, spec: EnvSpec) -> None:
    session = _Session(make(0), spec)
    session.run()
    step, kept = session.step, session.carry

    def action(carry: Carry, first: list[bool]) -> NDArray[np.float32]:
        decision = session.agent.act(carry, step.observation, np.array(first), step.task, explore=False)
        return decision.action

    fresh = action(session.agent.initial_carry(NUM_ENVS), [True] * NUM_ENVS)
    _require(
        np.array_equal(action(kept, [True] * NUM_ENVS), fresh),
        "where 'first' is true the carry must be forgotten, but it changed the action",
    )
    alone = action(kept, [True] + [False] * (NUM_ENVS - 1))
    _require(
        np.allclose(alone[0], fresh[0], atol=_ROUNDING),
        "where 'first' is true the carry of that environment must be forgotten, also when others go on",
    )


def _check_padding(make: Make, spec: EnvSpec, reference: list[_Record]) -> None:
    leaking = _Session(make(0), spec, padding=100.0).run()
    _require(_same(leaking, reference), "values in padded observation entries changed actions or metrics; mask them")


def _check_save_and_load(make: Make, spec: EnvSpec, reference: list[_Record]) -> None:
    session = _Session(make(0), spec)
    done = 0
    for decisions in _SAVE_AFTER:
        _require(
            _same(session.run(decisions - done), reference[done:decisions]), "save changed the training that followed"
        )
        done = decisions
        with tempfile.TemporaryDirectory() as folder:
            session.agent.save(Path(folder), session.carry)
            _check_files(Path(folder))
            # Another seed, so that what was not saved shows.
            loaded = make(1)
            resumed = session.resumed(loaded, loaded.load(Path(folder)))
        for turn in range(decisions, DECISIONS):
            (record,) = resumed.run(1)
            what = "actions" if not np.array_equal(record.action, reference[turn].action) else "metrics"
            _require(
                _same([record], [reference[turn]]),
                f"an agent saved after {decisions} decisions and loaded into a new object gave other {what} in "
                f"decision {turn + 1}; save everything that training depends on, generators and the carry included",
            )


def _check_files(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    _require(bool(files), "save wrote no file into the directory it was given")
    for path in files:
        pickled = _is_pickle(path.name, path.read_bytes())
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickled |= any(_is_pickle(name, archive.read(name)) for name in archive.namelist())
        _require(not pickled, f"save wrote {path.name}, which looks like pickle; loading one can run any code")


def _is_pickle(name: str, data: bytes) -> bool:
    """Whether ``data`` is a pickle of protocol 2 or later, or an array of objects, which are pickled; nothing is
    executed."""
    if Path(name).suffix in _PICKLE_SUFFIXES:
        return True
    if data.startswith(np.lib.format.MAGIC_PREFIX):
        try:
            np.load(io.BytesIO(data), allow_pickle=False)
        except ValueError:
            return True
    # The first byte alone would not do: other formats begin with a length, which may be anything.
    if not data.startswith(b"\x80"):
        return False
    try:
        list(pickletools.genops(data))
    except ValueError:
        return False
    return True
