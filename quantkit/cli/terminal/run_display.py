"""The progress of a run with several steps: a block of lines on a terminal, one line for each step elsewhere.

    ✓ statistics  512 samples                                              8.1 s
    ⠹ model       round: weights of layers  ━━━━━━━━────────  12/22  about 9 s left
    · layers      128 samples                                          about 40 s
    · report      10,000 samples, 3 models                            about 6 min
    step 2 of 4, 0:34 so far, about 7 min left; --no-layers saves about 40 s

A thread redraws it, so that something moves while a library computes.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from quantkit.cli.interruption import raise_if_interrupted
from quantkit.cli.terminal.bars import SIGNS, draw_bar, format_duration
from quantkit.cli.terminal.console import is_capable_terminal, note, redraw_block, terminal_size
from quantkit.progress import Phases, PlannedStep

LONG = 20.0
"""Seconds from which a step is worth a hint, and a line where there is no terminal."""
SETTLED = 3.0
"""Seconds of a phase before it is judged by its pace."""
INTERVAL = 0.1
HINTS = {
    "layers": "--no-layers skips the layers",
    "compile": "--no-compile skips the compiler",
    "report": "--val-limit takes fewer",
}
"""Step → how to do less of it."""


@dataclass(slots=True)
class StepState:
    """A step, and how far it is. All times are values of the clock of the display, in seconds."""

    plan: PlannedStep
    begun: float | None = None
    seconds: float | None = None
    reused: bool = False
    phase: str = ""
    phase_begun: float = 0.0
    done: int = 0
    total: int | None = None
    expected: float | None = None
    """Seconds that the whole step takes by the forecast."""

    @property
    def over(self) -> bool:
        """True if the step is done or reused."""
        return self.seconds is not None

    def phase_left(self, now: float) -> float | None:
        """Return the seconds until the end of the phase by its pace so far; None if that is not known."""
        spent = now - self.phase_begun
        if not self.total or not self.done or spent < 1.0:
            return None
        return max(0.0, spent * (self.total - self.done) / self.done)

    def left(self, now: float) -> float | None:
        """Return the seconds until the end of the step: by its main phase, else by the forecast."""
        if self.over:
            return 0.0
        if self.begun is None:
            return self.expected
        phase = self.phase_left(now)
        rest = None if self.expected is None else self.expected - (now - self.begun)
        if rest is None or rest < 0:
            return phase
        if phase is None:
            return rest
        main = now - self.phase_begun + phase >= (self.expected or 0) / 2  # the phase takes most of the step
        return phase if main else max(phase, rest)


class RunDisplay:
    """Shows a run step by step. Use it as a context; `quantkit.progress.RunWatcher` is its interface.

    silent: nothing is shown. clean: the command discards earlier results (`--clean`). clock: seconds.
    """

    def __init__(self, *, silent: bool, clean: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._clean = clean
        self._live = not silent and is_capable_terminal(sys.stderr)
        self._lines = not silent and not self._live
        self._clock = clock
        self._started = clock()
        self._steps: dict[str, StepState] = {}
        self._now: StepState | None = None
        self._announced = False
        self._turns = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.phases = Phases(self._phase, self._count)

    # ── what the run reports ────────────────────────────────────────────────────────────────────────────────────────

    def planned(self, steps: Sequence[PlannedStep]) -> None:
        """Show the steps to come."""
        self._steps = {step.name: StepState(step) for step in steps}
        if self._lines:
            note(f"{len(steps)} steps: {', '.join(step.name for step in steps)}")

    def begin(self, step: str) -> None:
        """Show that a step begins. KeyboardInterrupt after an interruption."""
        raise_if_interrupted()
        state = self._steps.setdefault(step, StepState(PlannedStep(step)))
        state.begun = state.phase_begun = self._clock()
        self._now, self._announced = state, False
        if self._lines:
            number = list(self._steps).index(step) + 1
            expected = state.expected or 0.0
            work = f", {state.plan.work}" if state.plan.work else ""
            about = f", about {format_duration(expected)}" if expected >= LONG else ""
            note(f"step {number} of {len(self._steps)}: {step}{work}{about}")

    def forecast(self, seconds: dict[str, float]) -> None:
        """Keep how long the steps to come will take."""
        for step, expected in seconds.items():
            if step in self._steps and not self._steps[step].over:
                self._steps[step].expected = expected

    def end(self, step: str, seconds: float, *, reused: bool) -> None:
        """Show that a step is done."""
        if step in self._steps:
            self._steps[step].seconds, self._steps[step].reused = seconds, reused

    def _phase(self, name: str) -> None:
        raise_if_interrupted()
        if self._now is not None:
            self._now.phase, self._now.phase_begun = name, self._clock()
            self._now.done, self._now.total = 0, None

    def _count(self, done: int, total: int | None) -> None:
        if self._now is None:
            return
        self._now.done, self._now.total = done, total
        if self._lines and not self._announced and self._clock() - self._now.phase_begun >= SETTLED:
            left = self._now.phase_left(self._clock())
            if left is not None and left >= LONG:
                self._announced = True
                note(f"    {self._now.phase or self._now.plan.name}: about {format_duration(left)} left")

    # ── what is shown ───────────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, width: int, height: int) -> list[str]:
        """Return the lines of the block, none longer than `width`, at most `height`."""
        now = self._clock()
        self._turns += 1
        states = list(self._steps.values())
        names = max((len(state.plan.name) for state in states), default=0)
        lines = [self._row(state, names, width, now) for state in states]
        first = max(0, min(len(lines) - height + 1, (states.index(self._now) if self._now in states else 0) - 1))
        return [*lines[first : first + height - 1], self._summary(states, now)[:width]]

    def _row(self, state: StepState, names: int, width: int, now: float) -> str:
        if state.over:
            sign, work, figure = "✓", state.plan.work, "reused" if state.reused else format_duration(state.seconds or 0)
        elif state is self._now:
            sign, work, figure = SIGNS[self._turns % len(SIGNS)], state.phase or state.plan.work, ""
            left = state.phase_left(now)
            if state.total:
                figure = f"{state.done:,}/{state.total:,}"
                figure += f"  {format_duration(left)} left" if left is not None else ""
            else:
                figure = format_duration(now - state.phase_begun)
        else:
            sign, work = "·", state.plan.work
            figure = "" if state.expected is None else f"about {format_duration(state.expected)}"
        head = f"{sign} {state.plan.name:<{names}}  {work}"
        room = width - len(figure) - 1
        if state is self._now and not state.over and state.total and room - len(head) >= 9:
            size = min(24, room - len(head) - 2)
            figure = f"{draw_bar(state.done / state.total, size)} {figure}"
        room = width - len(figure) - 1
        return f"{head[:room]:<{room}} {figure}" if room >= names + 2 else head[:width]

    def _summary(self, states: Sequence[StepState], now: float) -> str:
        if self._now is None or not states:
            return f"{SIGNS[self._turns % len(SIGNS)]} reading model and data, {format_duration(now - self._started)}"
        text = f"step {states.index(self._now) + 1} of {len(states)}, {format_duration(now - self._started)} so far"
        lefts = [state.left(now) for state in states if not state.over]
        known = [left for left in lefts if left is not None]
        if known and sum(known) >= 1:
            text += f", about {format_duration(sum(known))} left"
        return text + self._hint(states, sum(known))

    def _hint(self, states: Sequence[StepState], left: float) -> str:
        """Return how to do less, for the longest step that has not begun and has such a hint."""
        least = max(LONG, left / 5)
        waiting = [state for state in states if state.begun is None and not state.over and state.plan.name in HINTS]
        slow = [state for state in waiting if (state.expected or 0) >= least]
        return f"; {HINTS[max(slow, key=lambda state: state.expected or 0).plan.name]}" if slow else ""

    def __enter__(self) -> RunDisplay:
        self._started = self._clock()
        if self._live:
            self._thread = threading.Thread(target=self._redraw, name="quantkit-progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            redraw_block([])
        done = sum(state.over for state in self._steps.values())
        if isinstance(error, KeyboardInterrupt) and done and (self._live or self._lines):
            again = "the same command without --clean" if self._clean else "the same command"
            note(f"{done} of {len(self._steps)} steps are done and kept: {again} continues after them")

    def _redraw(self) -> None:
        while True:
            size = terminal_size(sys.stderr)
            with contextlib.suppress(RuntimeError):  # the steps are being replaced: the next time will do
                redraw_block(self.rows(size.columns, size.lines - 1))
            if self._over.wait(INTERVAL):
                return
