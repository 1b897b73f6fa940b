"""Lanes in this process and in worker processes, each holding many environments.

A worker shares the arrays through anonymous shared memory. Steps are asked for and answered by counters in such memory
(:class:`Turns`), everything else by messages on a pipe. A worker leaves when the pipe closes, so none outlives its
parent, however that ends. The parent takes a part of the environments itself: a process that only waits for others
leaves its core idle for as long as it takes to wake up.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import platform
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
"""How long to look before going to sleep: waking a sleeping core costs as much as stepping a task."""

NAP_SECONDS = 0.01
"""How long a worker sleeps before it looks again, in case it fell asleep in the instant in which it was asked."""


ORDERED = platform.machine().lower() in ("x86_64", "amd64")
"""Whether one core sees another's writes in the order they were made, as :class:`Turns` needs; else messages do it."""


class Turns:
    """Counters by which a parent and one worker hand steps to each other, in memory both see.

    ``ASKED`` and ``DONE`` count steps. ``MAIL``: the answer to the last step is a message on the pipe. ``ASLEEP``: the
    worker waits for the pipe, so that a message has to wake it.
    """

    # each in a cache line of its own, or the two cores would take it from each other
    ASKED, DONE, MAIL, ASLEEP = 0, 8, 16, 24
    BYTES = 8 * 32

    def __init__(self, memory: Any) -> None:
        self._cells = memoryview(memory).cast("B").cast("q")

    def __getitem__(self, cell: int) -> int:
        return self._cells[cell]

    def __setitem__(self, cell: int, value: int) -> None:
        self._cells[cell] = value

    def reaches(self, cell: int, count: int) -> bool:
        """Look for a moment, without going to sleep, whether a counter comes to ``count``."""
        deadline = time.perf_counter() + (PATIENCE_SECONDS if ORDERED else 0)
        while self._cells[cell] != count:
            if time.perf_counter() > deadline:
                return False
            os.sched_yield()  # whoever else needs the core goes first
        return True


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
            worker.ask_for_step()

    def receive(self) -> list[Episode]:
        assert self._lanes is not None
        ended = self._lanes.receive()
        for worker in self._workers:
            ended += worker.episodes()
        return ended

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
        memory = RawArray("B", Turns.BYTES)
        self._turns, self._steps = Turns(memory), 0
        self._process = context.Process(
            target=_serve, args=(theirs, memory, *arguments), daemon=True, name="m3po-environments"
        )
        self._process.start()
        theirs.close()  # the worker's is now the only other end: its death closes the pipe

    def ask_for_step(self) -> None:
        if not ORDERED:
            self.send("receive")
            return
        self._steps += 1
        self._turns[Turns.ASKED] = self._steps
        if self._turns[Turns.ASLEEP]:
            self.send("wake")

    def episodes(self) -> list[Episode]:
        """Those that ended in the step asked for last, once it is done."""
        episodes: list[Episode]
        if not ORDERED:
            episodes = self.reply(REPLY_SECONDS)
            return episodes
        if not self._turns.reaches(Turns.DONE, self._steps):
            deadline = time.monotonic() + REPLY_SECONDS
            # a message means that it is done, failed or gone
            while self._turns[Turns.DONE] != self._steps and not self._pipe.poll(PATIENCE_SECONDS):
                if time.monotonic() > deadline:
                    raise self._hung(REPLY_SECONDS)
        if self._turns[Turns.DONE] == self._steps and not self._turns[Turns.MAIL]:
            return []
        episodes = self.reply(REPLY_SECONDS)
        return episodes

    def send(self, request: str, *arguments: Any) -> None:
        try:
            self._pipe.send((request, arguments))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._died() from error

    def reply(self, patience: float) -> Any:
        try:
            if not self._pipe.poll(patience):
                raise self._hung(patience)
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

    def _hung(self, seconds: float) -> EnvWorkerError:
        """Have it say where it hangs, on the standard error of all, then end it."""
        assert self._process.pid is not None
        os.kill(self._process.pid, STACKS)
        self._process.join(timeout=STACK_SECONDS)
        self._process.kill()
        return EnvWorkerError(
            f"an environment worker gave no answer for {seconds:g} s and was ended; it held {self._tasks}"
        )

    def _died(self) -> EnvWorkerError:
        self._process.join(timeout=2)
        code = self._process.exitcode
        return EnvWorkerError(f"an environment worker died (exit code {code}); it held {self._tasks}")


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
    turns_memory: Any,
    specs: Sequence[LaneSpec],
    memory: list[Any],
    layout: Layout,
    seed: int,
    stream: Stream,
    tolerant: bool,
) -> None:
    """Body of a worker process: build the lanes, then answer until the pipe closes."""
    # Ctrl-C, a closed terminal and a cluster's warning reach the whole group; the parent decides what they mean, and
    # needs us until then.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.register(STACKS, all_threads=True)
    blocks = iter(memory)
    lanes: Lanes | None = None
    try:
        lanes = Lanes(specs, Arrays.over(lambda _: next(blocks), layout), seed, stream, tolerant)
        pipe.send((None, None))
        _answer(pipe, Turns(turns_memory), lanes)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except EnvError as error:
        pipe.send((str(error), None))
    except Exception:
        pipe.send((f"an environment worker failed:\n{traceback.format_exc()}", None))
    finally:
        if lanes is not None:
            lanes.close()


def _answer(pipe: Connection, turns: Turns, lanes: Lanes) -> None:
    """Take steps when they are asked for, and answer messages between them; ends with an exception."""
    steps = 0
    while True:
        while turns.reaches(Turns.ASKED, steps + 1):
            steps += 1
            episodes = lanes.receive()
            if episodes:
                pipe.send((None, episodes))
            turns[Turns.MAIL] = bool(episodes)
            turns[Turns.DONE] = steps
        # Looking costs a core; it pays between two steps, not while the parent learns or evaluates elsewhere.
        turns[Turns.ASLEEP] = True
        while turns[Turns.ASKED] == steps:
            if pipe.poll(NAP_SECONDS):
                request, arguments = pipe.recv()
                if request != "wake":
                    pipe.send((None, getattr(lanes, request)(*arguments)))
                    break
        turns[Turns.ASLEEP] = False
