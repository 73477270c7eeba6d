"""What every experiment's command line shares: flags from a dataclass, one-line errors, Ctrl-C that can resume."""

import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import jax
import tyro

from experiments import running
from jaxmodels.training.compilation import keep_compiled
from jaxmodels.training.fit import Interrupted, NonFinite
from jaxmodels.training.memory import reuse_freed_memory

Config = TypeVar("Config")

NOT_FINITE, WRONG_INPUT, DOES_NOT_FIT, SIGNALLED = 1, 2, 3, 128  # exit statuses; a signal's number is added to the last


class DoesNotFit(Exception):
    """A plan needs more memory than there is."""


def parse(config: type[Config], description: str, argv: Sequence[str] | None = None) -> Config:
    """Flags -> the dataclass; a wrong flag or choice exits with status 2 and names the right ones."""
    return tyro.cli(config, description=description, args=argv, use_underscores=True)


def run(main: Callable[[Any], None], config: type[Any], description: str, module: str) -> NoReturn:
    """Runs an experiment's main function and exits as people expect.

    Wrong input is one line on standard error and status 2; a loss that is no number is status 1; Ctrl-C says how to go
    on and is status 130, SIGTERM (a preemption notice) likewise 143; a plan that does not fit is 3, and so is memory
    that runs out.
    """
    argv = sys.argv[1:]
    reuse_freed_memory()
    keep_compiled()
    try:
        given = parse(config, description, argv)
        running.check(given)
        main(given)
    except Interrupted as stop:
        _say(f"Interrupted after step {stop.step}.")
        if stop.saved:
            _say(f"Resume with: python -m {module} {shlex.join([a for a in argv if a != '--resume'])} --resume")
        sys.exit(SIGNALLED + stop.number)
    except KeyboardInterrupt:
        _say("Interrupted. Finished tasks are kept; --resume goes on after them.")
        sys.exit(SIGNALLED + signal.SIGINT)
    except DoesNotFit as error:
        _say(f"{error}")
        sys.exit(DOES_NOT_FIT)
    except NonFinite as error:
        _say(f"Error: {error}")
        sys.exit(NOT_FINITE)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _say(f"Error: not enough memory: {' '.join(str(error).split())[:200]}")
        sys.exit(DOES_NOT_FIT)
    except (ValueError, OSError) as error:
        _say(f"Error: {' '.join(str(error).split())}")
        sys.exit(WRONG_INPUT)
    sys.exit(0)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
