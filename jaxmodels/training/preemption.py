"""Preemption: SIGTERM (and Ctrl-C) become a flag that the training loop reads between steps.

With one process the flag is enough. With several, all must stop after the same step, or those that go on wait for
ever in a collective: there SIGTERM belongs to JAX's preemption service, which `jax.distributed.initialize` installs.
It tells every process of a signal to any of them and settles on a step that none has passed.
"""

import signal
import threading
from types import FrameType
from typing import Any

from jax._src.distributed import global_state
from jax.experimental.multihost_utils import reached_preemption_sync_point


class Preemption:
    """Catches the signals that ask a run to stop; a context manager around the training loop.

    The first signal of a kind is remembered and hands that kind back to the earlier handler, so that a second one
    acts as it would without this class (Ctrl-C twice interrupts at once). Leaving the context restores both kinds.

    Python runs signal handlers in the main thread only: elsewhere nothing is caught, and without JAX's preemption
    service nothing is ever requested. A handler that was not installed from Python cannot be put back by it, and is
    left in place. Where Ctrl-C is ignored, as shells have it for jobs in the background, it stays so.

    Where jax.distributed is initialised (do so before entering), SIGTERM is left to JAX's service whatever the
    thread, and the first Ctrl-C is handed on to the service as a SIGTERM.
    """

    def __init__(self, *, sigint: bool = False):
        """Prepares; signals are caught inside the context.

        Args:
            sigint: catch Ctrl-C (SIGINT) too.
        """
        self._sigint = sigint
        self._requested = self._agreed = False
        self.number = int(signal.SIGTERM)  # of the signal that asked; what JAX's service tells of is a SIGTERM
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> "Preemption":
        if global_state.client is not None and global_state.preemption_sync_manager is None:
            raise ValueError(
                "jax_enable_preemption_service: found False, expected True: "
                "several processes cannot agree on a step to stop at without it"
            )
        if threading.current_thread() is threading.main_thread():
            terminate = [] if _distributed() else [signal.SIGTERM]
            for number in terminate + [signal.SIGINT] * self._sigint:
                earlier = signal.getsignal(number)
                ignored = number == signal.SIGINT and earlier == signal.SIG_IGN  # a shell's background job
                if earlier is not None and not ignored:
                    self._earlier[number] = earlier
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, earlier in self._earlier.items():
            signal.signal(number, earlier)
        self._earlier = {}

    def requested(self) -> bool:
        """Whether this process knows that it shall stop: a signal was caught, or `agreed` was True."""
        return self._requested or self._agreed

    def agreed(self, step: int) -> bool:
        """Whether all processes stop after `step`; without jax.distributed, whether a signal was caught.

        With several processes every one of them calls it after every step, with consecutive numbers and from the same
        first one: the service names one step, and a process that leaves it out misses it. True stays True.

        Args:
            step: number of steps done.
        """
        if not self._agreed:
            self._agreed = reached_preemption_sync_point(step) if _distributed() else self._requested
        return self._agreed

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        self.number = number
        signal.signal(number, self._earlier[number])
        if _distributed():
            signal.raise_signal(signal.SIGTERM)  # the service's own handler takes it, and tells the other processes


def _distributed() -> bool:
    return global_state.client is not None
