"""What steps environments behind one set of arrays: this process, workers, or pools of a C++ engine, mixed at will."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from suites.lanes import Arrays, Lanes, LaneSpec, Layout, Replay
from suites.spec import Episode, Stream
from suites.workers import SharedMemory, WorkerEngine


class Engine(Protocol):
    """Some of the environments of a vector environment; the arrays carry what goes in and comes out."""

    def reset(self) -> None:
        """Start the first episode of every environment."""
        ...

    def send(self) -> None:
        """Begin to take the decisions in ``arrays.action``, without waiting."""
        ...

    def receive(self) -> list[Episode]:
        """Finish what :meth:`send` began; where an episode ended the next one has started. Returns those that ended."""
        ...

    def replay(self, episodes: Sequence[Replay]) -> None:
        """Bring environments into the middle of episodes by playing them again; those held elsewhere are passed by."""
        ...

    def close(self) -> None:
        """Free what it holds. May be called twice."""
        ...


class Engines:
    """The engines that the tasks of ``specs`` ask for, stepping at the same time. ``arrays`` are theirs together."""

    def __init__(
        self,
        specs: Sequence[LaneSpec],
        layout: Layout,
        seed: int,
        stream: Stream,
        num_processes: int,
        tolerant: bool = False,
        seconds: Mapping[int, float] | None = None,
    ) -> None:
        """``seconds``: how long stepping each environment took in earlier engines, to share the work out evenly."""
        native = [spec for spec in specs if spec.task.engine == "native"]
        pooled = [spec for spec in specs if spec.task.engine == "envpool"]
        self._engines: list[Engine] = []
        self._workers: WorkerEngine | None = None
        memory = SharedMemory()
        processes = min(num_processes, len(native))
        self.arrays = Arrays.over(memory if processes > 1 else bytearray, layout)
        try:
            if pooled:
                from suites.envpool import PoolEngine  # an optional package

                self._engines.append(PoolEngine(pooled, self.arrays, seed, stream, num_processes))
            if processes > 1:
                self._workers = WorkerEngine(
                    native, self.arrays, memory, layout, seed, stream, processes, tolerant, seconds
                )
                self._engines.append(self._workers)
            elif native:
                self._engines.append(Lanes(native, self.arrays, seed, stream, tolerant))
        except BaseException:
            self.close()
            raise

    def reset(self) -> None:
        """Start the first episode of every environment."""
        for engine in self._engines:
            engine.reset()

    def step(self) -> list[Episode]:
        """Take the decisions in ``arrays.action``; returns the episodes that ended, ordered by environment."""
        for engine in self._engines:
            engine.send()
        ended = [episode for engine in self._engines for episode in engine.receive()]
        return sorted(ended, key=lambda episode: episode.env)

    def replay(self, episodes: Sequence[Replay]) -> None:
        """Bring every environment into the middle of an episode."""
        for engine in self._engines:
            engine.replay(episodes)

    def uneven(self) -> Mapping[int, float] | None:
        """``seconds`` for new engines in which the processes would have more equal shares; ``None``: well as it is."""
        return None if self._workers is None else self._workers.uneven()

    def close(self) -> None:
        """Close the environments and end the workers. May be called twice."""
        for engine in self._engines:
            engine.close()
        self._engines = []
