"""The load generator, a process of its own: `python -m bench.generator KIND …`.

members: joins a room and, phase by phase, says when each member has every message
callers: talks to an echo for a while
idle:    opens connections, and keeps them, until it is told to end
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from collections.abc import Sequence

import uvloop

from bench.clients import Caller, Conversation, Crowd, Member, now_ns, open_all
from bench.lines import Commands, say

STRAGGLERS = 0.2
"""Seconds in which something that should not come would have come."""

ANSWER_WITHIN = 10.0
"""Seconds for the last answers of an echo."""


def latency(times: Sequence[int]) -> dict[str, float]:
    """Quantiles of ns, in ms; zeros of nothing."""
    ordered = sorted(times) or [0]

    def quantile(part: float) -> float:
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))] / 1e6

    return {"p50": quantile(0.5), "p99": quantile(0.99), "max": quantile(1.0)}


async def members(args: argparse.Namespace) -> None:
    """Say `open`, then for each phase `phase` when it is over, and `latency` to a command.

    The command may hold `sent`, the times of the phase's publications. Before it is
    answered, the next phase has begun, so that nothing is published too early.
    """
    commands = await Commands.open()
    phases: list[int] = args.phases
    crowd = Crowd(sum(phases), args.record)
    crowd.members = await open_all(args.port, lambda _: Member(args.path, crowd), args.count)
    _quiet()
    first = 0
    crowd.aim(phases[0])
    say("open")
    for messages, following in zip(phases, [*phases[1:], 0], strict=True):
        complete = await crowd.finish(args.within)
        say("phase", complete=complete, last=crowd.last, cut=crowd.cut, wrong=crowd.wrong)
        command = await commands.next()
        if command is None:
            return
        crowd.aim(first + messages + following)
        say("latency", **latency(crowd.latencies(first, command.get("sent", []))))
        first += messages
    await asyncio.sleep(STRAGGLERS)
    say("end", cut=crowd.cut, wrong=crowd.wrong)


async def callers(args: argparse.Namespace) -> None:
    """Say `open`, `measuring` after the warm-up, and the result."""
    conversation = Conversation()
    made = await open_all(
        args.port, lambda index: Caller(args.path, conversation, index), args.count
    )
    _quiet()
    say("open")
    for caller in made:
        caller.call()
    await asyncio.sleep(args.warm)
    say("measuring")
    conversation.measure()
    begin = now_ns()
    await asyncio.sleep(args.seconds)
    seconds = (now_ns() - begin) / 1e9
    times = conversation.latencies[:]
    say(
        "measured",
        round_trips=len(times),
        seconds=seconds,
        **latency(times),
    )
    conversation.running = False
    deadline = now_ns() + ANSWER_WITHIN * 1e9
    while any(caller.waiting and not caller.cut for caller in made) and now_ns() < deadline:  # noqa: ASYNC110  # an event would cost the hot path
        await asyncio.sleep(0.01)
    say(
        "end",
        sent=sum(caller.sent for caller in made),
        unanswered=sum(caller.waiting for caller in made),
        cut=sum(caller.cut for caller in made),
        wrong=conversation.wrong,
    )


async def idle(args: argparse.Namespace) -> None:
    """For each command open `count` connections; `rooms` puts each into a room of its own."""
    commands = await Commands.open()
    crowd = Crowd(0, record=False)
    while (command := await commands.next()) is not None:
        apart = bool(command["rooms"])

        def make(index: int, apart: bool = apart) -> Member:
            return Member(f"{args.path}?channel=room-{index}" if apart else args.path, crowd)

        crowd.members += await open_all(args.port, make, command["count"])
        say("open", cut=crowd.cut, wrong=crowd.wrong)


def _quiet() -> None:
    """No garbage collector in the middle of a measurement; nothing here makes cycles."""
    gc.collect()
    gc.disable()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("members", "callers", "idle"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--count", type=int, default=1, help="connections")
    parser.add_argument("--phases", type=int, nargs="+", help="messages of each")
    parser.add_argument("--record", action="store_true", help="the time of each receipt")
    parser.add_argument("--within", type=float, default=60.0, help="seconds for a phase")
    parser.add_argument("--warm", type=float, default=1.0, help="seconds")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds to measure")
    return parser


def main() -> None:
    args = _parser().parse_args()
    kinds = {"members": members, "callers": callers, "idle": idle}
    uvloop.run(kinds[args.kind](args))


if __name__ == "__main__":
    main()
