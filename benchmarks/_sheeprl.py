"""What runs in sheeprl's own interpreter, for parity_sheeprl.py: its command line, and its agent on our episodes.

It needs sheeprl with its dependencies and dm_control, and none of our packages.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "disabled")  # dm_control would look for a display

import numpy as np
import torch
import torch.nn.functional as F
from _processes import Turns
from lightning.fabric import Fabric
from omegaconf import OmegaConf
from sheeprl.algos.dreamer_v3.utils import prepare_obs
from sheeprl.algos.dreamer_v3_5 import dreamer_v3_5
from sheeprl.algos.dreamer_v3_5.agent import build_agent
from sheeprl.cli import run
from sheeprl.utils.env import make_env
from sheeprl.utils.utils import dotdict


def sheeprl(arguments: Sequence[str]) -> None:
    """Its command line."""
    sys.argv = ["sheeprl", *arguments]
    run()


def train(job: dict[str, Any]) -> None:
    """Train, then evaluate the checkpoints; writes one line for each."""
    sheeprl(job["arguments"])
    with Path(job["file"]).open("w") as file:
        for row in evaluations(Path(job["logs"]), job["episodes"]):
            file.write(json.dumps(job["run"] | row) + "\n")


def evaluations(logs: Path, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Of all checkpoints, the earliest first: one episode for each seed."""
    cfg = dotdict(OmegaConf.to_container(OmegaConf.load(logs / "config.yaml"), resolve=True))
    cfg.env.num_envs = len(seeds)
    envs = [make_env(cfg, 0, 0)() for _ in seeds]
    fabric = Fabric(accelerator="cpu", devices=1)
    names = ("world_model", "actor", "critic", "target_critic")
    checkpoints = {int(file.name.split("_")[1]): file for file in (logs / "checkpoint").glob("*.ckpt")}
    for decisions, file in sorted(checkpoints.items()):
        saved = torch.load(file, weights_only=True)
        weights = [saved[name] for name in names]
        *networks, _, player = build_agent(
            fabric, envs[0].action_space.shape, True, cfg, envs[0].observation_space, *weights
        )
        yield {
            "env_step": decisions * cfg.env.action_repeat,
            "gradient_steps": saved["per_rank_gradient_steps"],
            "parameters": sum(p.numel() for network in networks for p in network.parameters()),
            "return": float(np.mean(episodes(player, envs, seeds, fabric))),
        }


@torch.inference_mode()
def episodes(player: Any, envs: Sequence[Any], seeds: Sequence[int], fabric: Fabric) -> np.ndarray:
    """Returns of one episode in each environment; all are equally long."""
    # Its own greedy play takes the actor's mean, but draws the latents.
    player.rssm.sample = lambda logits: F.one_hot(logits.argmax(-1), logits.shape[-1]).float().flatten(-2)
    observations = [env.reset(seed=seed)[0]["state"] for env, seed in zip(envs, seeds, strict=True)]
    player.init_states()
    returns, over = np.zeros(len(envs)), False
    while not over:
        seen = prepare_obs(fabric, {"state": np.stack(observations)}, num_envs=len(envs))
        actions = torch.cat(player.get_actions(seen, greedy=True), -1)[0].numpy()
        steps = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        observations = [observation["state"] for observation, *_ in steps]
        returns += [reward for _, reward, *_ in steps]
        over = any(terminated or truncated for *_, terminated, truncated, _ in steps)
    return returns


def turns(job: dict[str, Any]) -> None:
    """Gradient steps in its own training loop: drawing a batch, learning from it, writing the latents back."""
    gate = Turns()
    sample, write = dreamer_v3_5.sample_sequences, dreamer_v3_5.write_latent_states

    def begin(*arguments: Any, **options: Any) -> Any:
        gate.begin()
        return sample(*arguments, **options)

    def end(*arguments: Any) -> None:
        write(*arguments)
        gate.end()

    dreamer_v3_5.sample_sequences, dreamer_v3_5.write_latent_states = begin, end
    sheeprl(job["arguments"])


if __name__ == "__main__":
    {"train": train, "turns": turns}[sys.argv[1]](json.loads(sys.argv[2]))
