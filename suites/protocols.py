"""Named protocols: how an episode is run and scored. Two protocols never share a figure."""

from __future__ import annotations

from suites.errors import SuiteError, unknown
from suites.spec import Protocol

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # Meta-World's own evaluation: 500 steps, solved if success is reached at any of them.
        Protocol(name="metaworld-v3", action_repeat=1, decisions=500, score="success_any", low=0, high=1),
        # TD-MPC2's: 100 decisions of two steps each, solved if the last one is a success.
        Protocol(name="metaworld-tdmpc2", action_repeat=2, decisions=100, score="success_last", low=0, high=1),
        # The DeepMind control suite: 1000 steps with a reward in [0, 1] each.
        Protocol(name="dmc-1000", action_repeat=1, decisions=1000, score="return", low=0, high=1000),
        # The same from images, with the action repeat that is usual there.
        Protocol(name="dmc-pixels", action_repeat=2, decisions=500, score="return", low=0, high=1000),
        # The toy family: 20 steps with a reward in [-1, 0] each.
        Protocol(name="toy-20", action_repeat=1, decisions=20, score="return", low=-20, high=0),
    )
}


def protocol(name: str, action_repeat: int | None = None) -> Protocol:
    """The protocol called ``name``, with ``action_repeat`` instead of its own where given.

    Raises :class:`SuiteError` for an unknown name, or a repeat that does not divide the episode.
    """
    if name not in PROTOCOLS:
        raise SuiteError(unknown("protocol", name, PROTOCOLS))
    return with_action_repeat(PROTOCOLS[name], action_repeat)


def own_protocol(written: Protocol) -> Protocol:
    """A protocol written out in a suite. Raises :class:`SuiteError` where it takes the name of one with other rules."""
    if PROTOCOLS.get(written.name, written) != written:
        raise SuiteError(f"protocol {written.name!r} is known with other rules; give yours another name")
    return written


def with_action_repeat(rules: Protocol, action_repeat: int | None) -> Protocol:
    """``rules`` with another action repeat (``None``: their own) and as many environment steps in an episode."""
    if action_repeat is None or action_repeat == rules.action_repeat:
        return rules
    env_steps = rules.decisions * rules.action_repeat
    if action_repeat < 1 or env_steps % action_repeat:
        raise SuiteError(
            f"action_repeat {action_repeat} does not divide the {env_steps} environment steps of an episode of "
            f"{rules.name}"
        )
    return rules.model_copy(update={"action_repeat": action_repeat, "decisions": env_steps // action_repeat})
