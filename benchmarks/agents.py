"""What the agents cost on one core, or one core and a GPU: a decision for 1, 8 and 50 environments, an update, a run
end to end, memory.

Planning is held against the machine itself: the same matrix products, alone, in the same run.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from copy import deepcopy

from m3po.bench.launch.local import KEEP_MEMORY, ONE_THREAD

if __name__ == "__main__" and any(os.environ.get(name) != value for name, value in (ONE_THREAD | KEEP_MEMORY).items()):
    # Threads and the allocator are settled before torch is there: as in the workers of `m3po-bench run`.
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD, **KEEP_MEMORY})

import numpy as np
import torch
from _table import Measurement, options, show
from harness import cell_of, finish
from torch import Tensor, nn

from baselines.dreamerv3.agent import DreamerV3
from baselines.sac.agent import SAC
from baselines.tdmpc2.agent import TDMPC2
from m3po.algorithm.agent import M3PO
from m3po.algorithm.losses import model_loss
from m3po.api import Agent, EnvSpec, transition
from m3po.kit.optim import descend
from m3po.registry import agent_class
from suites.catalog import load_suite
from suites.spec import Task
from suites.vector import VectorEnv, env_spec

PRESETS = {
    "cpu": {
        "m3po": ("small", "default"),
        "ppo": ("small",),
        "sac": ("small",),
        "tdmpc2": ("nano", "size1"),
        "dreamerv3": ("nano", "size1m"),
    },
    "cuda": {
        "m3po": ("small", "default"),
        "ppo": ("small",),
        "sac": ("small",),
        "tdmpc2": ("size5", "size48"),
        "dreamerv3": ("size12m", "size200m"),
    },
}
"""Of each agent, by device; the run end to end is the first one's."""
SHORT = {"dreamerv3": 4_000, "tdmpc2": 8_000}
"""Environment steps end to end where 20,000 would take minutes; with a GPU, whose sizes are larger, it is left out."""
NUM_ENVS = (1, 8, 50)
TASK = "walker-walk"


def tasks() -> Sequence[Task]:
    """The task whose spaces are decided and updated on."""
    return load_suite("dmc4", [f"tasks.names=[{TASK}]"]).tasks


def best(call: Callable[[], object], seconds: float) -> float:
    """Milliseconds of the fastest call within ``seconds``, or of one: what else the machine does only ever adds.

    A call ends when the GPU, where it uses one, has done its part.
    """

    def wait() -> None:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()

    call()
    wait()
    fastest, until = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < until or fastest == float("inf"):
        call()
        wait()
        fastest = min(fastest, time.perf_counter() - start)
    return 1000 * fastest


def filled(name: str, preset: str, spec: EnvSpec, device: str) -> Agent:
    """An agent at seed 0 that remembers 100 decisions of 8 environments."""
    kind = agent_class(name)
    agent = kind(spec, kind.Config(preset=preset), seed=0, device=device)
    with closing(VectorEnv(tasks(), 8, seed=0, stream="train")) as env:
        step, carry = env.reset(), agent.initial_carry(8)
        for _ in range(100):
            decision = agent.act(carry, step.observation, step.first, step.task, explore=True)
            following = env.step(decision.action)
            agent.observe(transition(step, decision, following))
            step, carry = following, decision.carry
    return agent


def past_the_start(agent: Agent) -> None:
    """Make an agent act as it does once it learns: before, it acts at random or without planning."""
    if isinstance(agent, M3PO):
        agent.env_step = agent.config.learning_starts
    elif isinstance(agent, TDMPC2):
        agent.decisions = agent.seed_decisions
    elif isinstance(agent, SAC):
        agent.transitions = agent.config.learning_starts


def decide(agent: Agent, spec: EnvSpec, num_envs: int) -> Callable[[], object]:
    """A call that makes one exploring decision for ``num_envs`` environments in the middle of episodes."""
    observation = np.random.default_rng(0).normal(size=(num_envs, spec.observation_size)).astype(np.float32)
    task, nothing = np.zeros(num_envs, np.int64), np.zeros(num_envs, bool)
    carry = agent.act(agent.initial_carry(num_envs), observation, ~nothing, task, explore=True).carry
    return lambda: agent.act(carry, observation, nothing, task, explore=True)


@contextmanager
def linear_layers(products: list[tuple[Tensor, nn.Linear]]) -> Iterator[None]:
    """Note the input and the layer of each matrix product that runs meanwhile."""

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            products.append((inputs[0].detach().flatten(0, -2).contiguous(), layer))

    hook = nn.modules.module.register_module_forward_hook(note)
    try:
        yield
    finally:
        hook.remove()


def matrix_products(call: Callable[[], object]) -> Callable[[], object]:
    """A call that does the matrix products of ``call`` and nothing else, into memory that is already there."""
    products: list[tuple[Tensor, nn.Linear]] = []
    with linear_layers(products):
        call()
    prepared = [(x, layer.weight.detach().t(), x.new_empty(x.shape[0], layer.out_features)) for x, layer in products]

    def multiply() -> None:
        for x, weight, out in prepared:
            torch.mm(x, weight, out=out)

    return multiply


def decisions(name: str, preset: str, spec: EnvSpec, device: str, seconds: float) -> list[Measurement]:
    """Milliseconds per decision; for M3PO also how much of it the machine needs for the matrix products alone."""
    rows = []
    for num_envs in NUM_ENVS:
        agent = filled(name, preset, spec, device)
        past_the_start(agent)
        call = decide(agent, spec, num_envs)
        taken = best(call, seconds)
        label = f"{name} {preset}: decision for {num_envs} environments"
        rows.append(Measurement(label, taken, "ms"))
        if isinstance(agent, M3PO):
            share = best(matrix_products(call), seconds) / taken
            bar = ">= 0.40" if num_envs == NUM_ENVS[-1] and device == "cpu" else None
            rows.append(Measurement(f"{label}: the machine's time for its matrix products", share, "share", bar))
    return rows


def gradient_step(name: str, preset: str, spec: EnvSpec, device: str, seconds: float) -> list[Measurement]:
    """Milliseconds per update of a rival that learns from replay."""
    agent = filled(name, preset, spec, device)
    past_the_start(agent)

    def learn() -> None:
        if isinstance(agent, TDMPC2):
            agent.updates = int(agent.decisions * agent.config.updates_per_step) - 1
        elif isinstance(agent, SAC | DreamerV3):
            agent.credit = 1.0
        assert agent.update()

    return [Measurement(f"{name} {preset}: whole update", best(learn, seconds), "ms")]


def updates(preset: str, spec: EnvSpec, device: str, seconds: float) -> list[Measurement]:
    """Milliseconds per update of the world model and of the policy of M3PO."""
    agent = filled("m3po", preset, spec, device)
    assert isinstance(agent, M3PO)
    c = agent.config
    assert agent.replay is not None
    batch = agent.replay.sample(c.batch, c.model_horizon, agent.sampling, device)
    noise = torch.zeros_like(batch["action"])

    def model() -> Tensor:
        loss = model_loss(agent.model, agent.target, batch, agent.gamma, noise, c, terminates=False)
        descend(loss.total, agent.encoder_optimizer, agent.world_optimizer, limit=c.grad_clip)
        return loss.latents.flatten(0, 1)

    latents, task = model(), batch["task"].flatten()
    old = deepcopy(agent.model.actor).requires_grad_(False)
    return [
        Measurement(f"m3po {preset}: model update", best(model, seconds), "ms"),
        Measurement(
            f"m3po {preset}: policy update",
            best(lambda: agent._improve_on_replay(latents, task, old), seconds),
            "ms",
        ),
        Measurement(f"m3po {preset}: whole update", best(lambda: agent._learn(old), seconds), "ms"),
    ]


def end_to_end(name: str, preset: str, device: str, env_steps: int) -> list[Measurement]:
    """Environment steps per second of a cell on cartpole-swingup, evaluation aside, and its memory."""
    changes = ["tasks.names=[cartpole-swingup]", f"agents.{name}={{preset: {preset}}}"]
    if name == "m3po":
        changes.append("agents.m3po.updates_per_step=0.25")
    with cell_of("lite", name, env_steps, changes) as folder:
        finish(folder, device=device)
        row, memory = folder.metrics.rows()[-1], folder.status().peak_memory_mb
    label = f"{name} {preset}: cartpole-swingup end to end"
    bar = ">= 200" if (name, preset, device) == ("m3po", "small", "cpu") else None
    assert memory is not None
    return [
        Measurement(label, row["env_step"] / row["seconds"], "steps/s", bar),
        Measurement(f"{label}: peak memory", memory, "MB"),
    ]


def main() -> int:
    arguments = options(__doc__, devices=tuple(PRESETS))
    seconds, device = 0.2 if arguments.quick else 3.0, arguments.device
    if device == "cuda":
        torch.zeros((), device=device)  # Starts it, so that `best` waits for it.
    spec = env_spec(tasks())
    rows = []
    for name, presets in PRESETS[device].items():
        for preset in presets:
            rows += decisions(name, preset, spec, device, seconds)
            if name == "m3po":
                rows += updates(preset, spec, device, seconds)
            elif name != "ppo":  # whose updates are whole rollouts: see the steps/s
                rows += gradient_step(name, preset, spec, device, seconds)
        if device == "cpu" or name not in SHORT:
            rows += end_to_end(name, presets[0], device, 4_000 if arguments.quick else SHORT.get(name, 20_000))
    return show(f"The agents, one core{' and a GPU' * (device == 'cuda')}", rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
