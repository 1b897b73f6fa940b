"""Our vector environment as Stable-Baselines3 wants it."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from suites.vector import VectorEnv


class Envs(VecEnv):
    """Environments of one task."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.render_mode = None
        D, A = env.spec.observation_size, env.spec.action_dim
        super().__init__(env.num_envs, Box(-np.inf, np.inf, (D,), np.float32), Box(-1, 1, (A,), np.float32))

    def reset(self) -> NDArray[np.float32]:
        return self.env.reset().observation

    def step_async(self, actions: NDArray[np.float32]) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        step = self.env.step(self.actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for n in np.flatnonzero(step.first):
            infos[n]["terminal_observation"] = step.next_observation[n]
            infos[n]["TimeLimit.truncated"] = bool(step.truncated[n] and not step.terminated[n])
        return step.observation, step.reward, step.first, infos

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError(f"{attr_name} cannot be set")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError(f"there is no {method_name}")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs
