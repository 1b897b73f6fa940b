"""Lanes in this process and in worker processes, each holding many environments.

A worker shares the arrays through anonymous shared memory and is woken by a message on a pipe. It leaves when the pipe
closes, so none outlives its parent, however that ends. The parent takes a part of the environments itself: a process
that only waits for others leaves its core idle for as long as it takes to wake up.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawArray
from typing import Any

from suites.errors import EnvError, EnvWorkerError
from suites.lanes import Arrays, Lanes, LaneSpec, Layout, Replay
from suites.spec import Episode, Stream

BUILD_SECONDS = 300.0
"""A worker that is not ready so long after its start is taken for hung."""

REPLY_SECONDS = 60.0
"""A worker that says nothing for so long is taken for hung; a step takes milliseconds, a reset less than a second."""

STACKS = signal.SIGUSR2
"""Asks a worker for the stacks of its threads."""

STACK_SECONDS = 1.0
"""How long it may take to write them."""

WORTH_DEALING_AGAIN = 1.02
"""Dealing environments out again means to build them again, once, for what it saves in every step."""

PATIENCE_SECONDS = 1e-3
"""How long to look for a message before going to sleep: waking a sleeping core costs as much as stepping a task."""


class SharedMemory:
    """Zeroed buffers that worker processes see too."""

    def __init__(self) -> None:
        self.blocks: list[Any] = []

    def __call__(self, size: int) -> Any:
        """A buffer of ``size`` bytes."""
        self.blocks.append(RawArray("B", size))
        return self.blocks[-1]


class WorkerEngine:
    """Lanes in ``num_processes`` processes, this one and workers, dealt out evenly.

    ``arrays`` lie with ``layout`` over ``memory``.
    """

    def __init__(
        self,
        specs: Sequence[LaneSpec],
        arrays: Arrays,
        memory: SharedMemory,
        layout: Layout,
        seed: int,
        stream: Stream,
        num_processes: int,
        tolerant: bool,
        seconds: Mapping[int, float] | None,
    ) -> None:
        context = multiprocessing.get_context("spawn")  # a forked copy of a threaded parent can deadlock
        self._workers: list[_Worker] = []
        self._lanes: Lanes | None = None
        self._specs, self._parts = specs, _deal(specs, num_processes, seconds)
        *theirs, mine = self._parts
        try:
            for part in theirs:
                self._workers.append(_Worker(context, part, (part, memory.blocks, layout, seed, stream, tolerant)))
            self._lanes = Lanes(mine, arrays, seed, stream, tolerant)
            self._replies(BUILD_SECONDS)
        except BaseException:
            self.close()
            raise

    def reset(self) -> None:
        self._everywhere("reset")

    def send(self) -> None:
        for worker in self._workers:
            worker.send("receive")

    def receive(self) -> list[Episode]:
        assert self._lanes is not None
        mine = self._lanes.receive()
        return [episode for episodes in (mine, *self._replies()) for episode in episodes]

    def replay(self, episodes: Sequence[Replay]) -> None:
        self._everywhere("replay", episodes)

    def uneven(self) -> Mapping[int, float] | None:
        """How long each environment took so far, where dealing them out by that would save a part worth the trouble."""
        seconds = {env: took for part in self._everywhere("seconds") for env, took in part.items()}
        now, then = (_longest(parts, seconds) for parts in (self._parts, _deal(self._specs, len(self._parts), seconds)))
        return seconds if now > WORTH_DEALING_AGAIN * then else None

    def close(self) -> None:
        for worker in self._workers:
            worker.hang_up()
        if self._lanes is not None:
            self._lanes.close()
        for worker in self._workers:
            worker.join()
        self._workers, self._lanes = [], None

    def _everywhere(self, request: str, *arguments: Any) -> list[Any]:
        """The answers of this process and of all workers, which work at the same time."""
        for worker in self._workers:
            worker.send(request, *arguments)
        return [getattr(self._lanes, request)(*arguments), *self._replies()]

    def _replies(self, patience: float | None = None) -> list[Any]:
        return [worker.reply(REPLY_SECONDS if patience is None else patience) for worker in self._workers]


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, context: Any, specs: Sequence[LaneSpec], arguments: tuple[Any, ...]) -> None:
        self._tasks = ", ".join(dict.fromkeys(spec.task.name for spec in specs))
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *arguments), daemon=True, name="m3po-environments")
        self._process.start()
        theirs.close()  # the worker's is now the only other end: its death closes the pipe

    def send(self, request: str, *arguments: Any) -> None:
        try:
            self._pipe.send_bytes(pickle.dumps((request, arguments)))  # Connection.send is made for more, and slower
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._died() from error

    def reply(self, patience: float) -> Any:
        try:
            if not (_look_for_message(self._pipe) or self._pipe.poll(patience)):
                self._end_hung()
                raise EnvWorkerError(
                    f"an environment worker gave no answer for {patience:g} s and was ended; it held {self._tasks}"
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

    def _end_hung(self) -> None:
        """Have it say where it hangs, on the standard error of all, then end it."""
        assert self._process.pid is not None
        os.kill(self._process.pid, STACKS)
        self._process.join(timeout=STACK_SECONDS)
        self._process.kill()

    def _died(self) -> EnvWorkerError:
        self._process.join(timeout=2)
        code = self._process.exitcode
        return EnvWorkerError(f"an environment worker died (exit code {code}); it held {self._tasks}")


def _look_for_message(pipe: Connection) -> bool:
    """Look for a message for a moment without going to sleep; whether there is one."""
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLIN)
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while not (found := poll.poll(0)) and time.perf_counter() < deadline:
        os.sched_yield()  # whoever else needs the core goes first
    return bool(found)


def _deal(
    specs: Sequence[LaneSpec], num_processes: int, seconds: Mapping[int, float] | None = None
) -> list[list[LaneSpec]]:
    """Specs for each process. All wait for the slowest, so costly tasks must not meet in one.

    Where it is known how long each environment takes, the longest goes first, to whoever has least to do. Else:
    neighbours in a list of tasks cost alike, and replicas of a task cost the same, so each round of the dealing gives
    them to different processes, and begins with another one than the round before.
    """
    parts: list[list[LaneSpec]] = [[] for _ in range(num_processes)]
    if seconds is not None:
        load = [0.0] * num_processes
        for spec in sorted(specs, key=lambda spec: -seconds[spec.env]):
            least = load.index(min(load))
            parts[least].append(spec)
            load[least] += seconds[spec.env]
        return parts
    for place, spec in enumerate(sorted(specs, key=lambda spec: (spec.replica, spec.task_index))):
        parts[(place + place // num_processes) % num_processes].append(spec)
    return parts


def _longest(parts: Sequence[Sequence[LaneSpec]], seconds: Mapping[int, float]) -> float:
    return max(sum(seconds[spec.env] for spec in part) for part in parts)


def _serve(
    pipe: Connection,
    specs: Sequence[LaneSpec],
    memory: list[Any],
    layout: Layout,
    seed: int,
    stream: Stream,
    tolerant: bool,
) -> None:
    """Body of a worker process: build the lanes, then answer until the pipe closes."""
    # Ctrl-C and a cluster's warning reach the whole group; the parent decides what they mean, and needs us until then.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.register(STACKS, all_threads=True)
    blocks = iter(memory)
    lanes: Lanes | None = None
    try:
        lanes = Lanes(specs, Arrays.over(lambda _: next(blocks), layout), seed, stream, tolerant)
        pipe.send((None, None))
        while True:
            _look_for_message(pipe)
            request, arguments = pipe.recv()
            pipe.send_bytes(pickle.dumps((None, getattr(lanes, request)(*arguments))))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except EnvError as error:
        pipe.send((str(error), None))
    except Exception:
        pipe.send((f"an environment worker failed:\n{traceback.format_exc()}", None))
    finally:
        if lanes is not None:
            lanes.close()
