"""Lanes in worker processes that hold many environments each.

A worker shares the arrays through anonymous shared memory and is woken by a message on a pipe. It leaves when the pipe
closes, so none outlives its parent, however that ends.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawArray
from typing import Any, Protocol

from suites.errors import EnvError, EnvWorkerError
from suites.lanes import Arrays, Lanes, LaneSpec, Replay
from suites.spec import Episode, Stream

REPLY_SECONDS = 300.0
"""A worker that says nothing for so long is taken for hung."""


class Engine(Protocol):
    """What steps environments, here (:class:`Lanes`) or elsewhere; the arrays carry what goes in and comes out."""

    @property
    def arrays(self) -> Arrays: ...

    def reset(self) -> None: ...

    def step(self) -> list[Episode]: ...

    def replay(self, episodes: Sequence[Replay]) -> None: ...

    def close(self) -> None: ...


class WorkerEngine:
    """Lanes in ``num_workers`` processes, dealt out evenly."""

    def __init__(
        self, specs: Sequence[LaneSpec], sizes: tuple[int, int], seed: int, stream: Stream, num_workers: int
    ) -> None:
        context = multiprocessing.get_context("spawn")  # a forked copy of a threaded parent can deadlock
        memory: list[Any] = []

        def shared(size: int) -> Any:
            memory.append(RawArray("B", size))
            return memory[-1]

        self.arrays = Arrays.over(shared, len(specs), *sizes)
        self._workers: list[_Worker] = []
        try:
            for part in _deal(specs, num_workers):
                arguments = (part, memory, (len(specs), *sizes), seed, stream)
                self._workers.append(_Worker(context, part, arguments))
            self._replies()
        except BaseException:
            self.close()
            raise

    def reset(self) -> None:
        self._ask("reset")

    def step(self) -> list[Episode]:
        ended = [episode for episodes in self._ask("step") for episode in episodes]
        return sorted(ended, key=lambda episode: episode.env)

    def replay(self, episodes: Sequence[Replay]) -> None:
        for worker in self._workers:
            worker.send("replay", [replay for replay in episodes if replay.env in worker.envs])
        self._replies()

    def close(self) -> None:
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.join()
        self._workers = []

    def _ask(self, request: str) -> list[Any]:
        for worker in self._workers:
            worker.send(request)
        return self._replies()

    def _replies(self) -> list[Any]:
        return [worker.reply() for worker in self._workers]


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, context: Any, specs: Sequence[LaneSpec], arguments: tuple[Any, ...]) -> None:
        self.envs = frozenset(spec.env for spec in specs)
        self._tasks = ", ".join(dict.fromkeys(spec.task.name for spec in specs))
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *arguments), daemon=True, name="m3po-environments")
        self._process.start()
        theirs.close()  # the worker's is now the only other end: its death closes the pipe

    def send(self, request: str, argument: Any = None) -> None:
        try:
            self._pipe.send((request, argument))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._died() from error

    def reply(self) -> Any:
        try:
            if not self._pipe.poll(REPLY_SECONDS):
                raise EnvWorkerError(
                    f"an environment worker gave no answer for {REPLY_SECONDS:g} s; it holds {self._tasks}"
                )
            fault, value = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise self._died() from error
        if fault is not None:
            raise EnvError(fault)
        return value

    def hang_up(self) -> None:
        self._pipe.close()

    def join(self) -> None:
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _died(self) -> EnvWorkerError:
        self._process.join(timeout=2)
        code = self._process.exitcode
        return EnvWorkerError(f"an environment worker died (exit code {code}); it held {self._tasks}")


def _deal(specs: Sequence[LaneSpec], num_workers: int) -> list[list[LaneSpec]]:
    """Specs for each worker. All wait for the slowest, so costly tasks must not meet in one worker.

    Neighbours in a list of tasks cost alike, and replicas of a task cost the same: both are dealt to different workers.
    """
    num_tasks = 1 + max(spec.task_index for spec in specs)
    rotated = sorted(specs, key=lambda spec: (spec.replica, (spec.task_index + spec.replica) % num_tasks))
    return [rotated[worker::num_workers] for worker in range(num_workers)]


def _serve(
    pipe: Connection,
    specs: Sequence[LaneSpec],
    memory: list[Any],
    sizes: tuple[int, int, int],
    seed: int,
    stream: Stream,
) -> None:
    """Body of a worker process: build the lanes, then answer until the pipe closes."""
    # Ctrl-C and a cluster's warning reach the whole group; the parent decides what they mean, and needs us until then.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    blocks = iter(memory)
    lanes: Lanes | None = None
    try:
        lanes = Lanes(specs, Arrays.over(lambda _: next(blocks), *sizes), seed, stream)
        pipe.send((None, None))
        while True:
            request, argument = pipe.recv()
            value = getattr(lanes, request)() if argument is None else getattr(lanes, request)(argument)
            pipe.send((None, value))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except EnvError as error:
        pipe.send((str(error), None))
    except Exception:
        pipe.send((f"an environment worker failed:\n{traceback.format_exc()}", None))
    finally:
        if lanes is not None:
            lanes.close()
