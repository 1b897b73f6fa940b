"""The agents this package brings, found as the harness finds them and so small that tests can live with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from m3po.api import Carry, EnvSpec, Metrics, transition
from suites.spec import VectorStep
from suites.vector import VectorEnv
from tests.baselines.toys import TASKS

__all__ = ["AGENTS", "M3PO", "SEEING", "TINY", "Moment", "lived"]

# So small that each agent updates several times within the battery's few decisions.
M3PO = {
    "latent": 8,
    "hidden": 8,
    "bins": 11,
    "task_embedding": 4,
    "samples": 8,
    "batch": 4,
    "updates_per_step": 0.1,
    "learning_starts": 24,
    "rollout_size": 18,
}
TINY: Mapping[str, Mapping[str, Any]] = {
    "random": {},
    "ppo": {"hidden": (8,), "rollout_size": 24, "minibatch_size": 8, "epochs": 2},
    "sac": {"hidden": (8,), "batch_size": 4, "learning_starts": 4, "updates_per_step": 0.4},
    "tdmpc2": {
        "enc_dim": 8,
        "mlp_dim": 8,
        "latent_dim": 8,
        "task_dim": 4,
        "num_q": 3,
        "num_bins": 11,
        "iterations": 2,
        "num_samples": 12,
        "num_pi_trajs": 4,
        "num_elites": 4,
        "batch_size": 4,
        "updates_per_step": 0.4,
        "seed_steps": 24,
        "seed_episodes": 0,
        "replay_capacity": 60,
    },
    "m3po": M3PO,
    "dreamerv3": {
        "deter": 8,
        "hidden": 8,
        "stoch": 2,
        "classes": 4,
        "blocks": 2,
        "units": 8,
        "layers": 1,
        "depth": 1,
        "bins": 11,
        "batch_size": 2,
        "batch_length": 4,
        "imagination": 3,
        "train_ratio": 1.0,
        "warmup": 5,
        "learning_starts": 24,
        "replay_capacity": 60,
    },
}
OURS = ("baselines.", "m3po.")
SEEING = ("random", "dreamerv3")
AGENTS = {point.name: point for point in entry_points(group="m3po.agents") if point.value.startswith(OURS)}


class Moment(NamedTuple):
    """An agent behind one turn of the training loop, the metrics of that turn and what it decides from next."""

    agent: Any
    spec: EnvSpec
    metrics: Metrics
    carry: Carry
    step: VectorStep


def lived(name: str, device: str = "cpu", decisions: int = 32) -> Iterator[Moment]:
    """The turns of a tiny agent's training in three environments of a toy task."""
    agent_class = AGENTS[name].load()
    with VectorEnv(TASKS[:1], 3, seed=0, stream="train") as env:
        agent = agent_class(env.spec, agent_class.Config(**TINY[name]), seed=0, device=device)
        step, carry = env.reset(), agent.initial_carry(3)
        for _ in range(decisions):
            decision = agent.act(carry, step.observation, step.first, step.task, explore=True)
            following = env.step(decision.action)
            agent.observe(transition(step, decision, following))
            step, carry = following, decision.carry
            yield Moment(agent, env.spec, agent.update(), carry, step)
