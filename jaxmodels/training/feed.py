"""Feed: the batches of a run, read ahead and put on the devices while earlier steps compute."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import absl.flags
import grain

from jaxmodels.method import StepBatch
from jaxmodels.training.shapes import Shapes, few_shapes

AHEAD = 2  # batches that wait on the devices


@contextlib.contextmanager
def feed(
    batches: Any,
    steps: range,
    put: Callable[[StepBatch], Any],
    *,
    workers: int = 0,
    ahead: int = AHEAD,
    shapes: int = 1,
) -> Iterator[Iterator[Any]]:
    """A context with the batches of `steps`, in order; a thread reads them and puts them on the devices.

    What comes is a function of the step alone, however far the thread or the workers are ahead.

    Args:
        batches: batches[step] gives a batch.
        steps: consecutive.
        put: batch -> what is handed out (`mesh.put_batch`).
        workers: processes that read and decode (Grain's), for `data.batches`; 0 leaves it to the thread.
        ahead: batches that may wait, at least 1.
        shapes: different shapes of batches that there may be.

    Raises:
        ValueError: workers for batches that are not Grain's; on reading: a batch of other names, shapes or dtypes than
            the first (than the first `shapes` kinds), for which the step would have to be compiled again. What reading
            raises is raised on, too.
    """
    if workers and not isinstance(batches, grain.MapDataset):
        raise ValueError(f"--workers={workers}: needs batches from `data.batches`, found {type(batches).__name__}")
    room, ready, closed = threading.Semaphore(ahead), queue.SimpleQueue[Any](), threading.Event()

    def read() -> None:
        found: Generator[StepBatch, None, None] = (
            decoded(batches, steps.start, workers) if workers else (batches[i] for i in steps)
        )
        seen: list[Shapes] = []
        with contextlib.closing(found):
            for step in steps:
                room.acquire()
                if closed.is_set():
                    return
                batch = next(found)
                seen = few_shapes(seen, batch, f"batch {step}", most=shapes)
                ready.put(put(batch))

    def reading() -> None:
        try:
            read()
        except BaseException as error:  # is raised where the batch is asked for
            ready.put(_Failed(error))

    def taken() -> Iterator[Any]:
        for _ in steps:
            batch = ready.get()
            if isinstance(batch, _Failed):
                raise batch.error
            room.release()
            yield batch

    thread = threading.Thread(target=reading, name="feed", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        closed.set()
        room.release()
        thread.join(timeout=5.0)  # a source may hang, and must not hold up the end of the run


def decoded(batches: grain.MapDataset, start: int, workers: int) -> Generator[StepBatch, None, None]:
    """`batches[start]`, `batches[start + 1]`, ..., read and decoded ahead by `workers` processes.

    The module that starts the run must be importable, as for any Python multiprocessing (`if __name__ == '__main__'`).
    """
    if not absl.flags.FLAGS.is_parsed():
        absl.flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags, which only absl.app would have parsed
    # Grain's defaults (16 threads, 500 buffered elements) are meant for single examples, not for whole batches.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    ahead = batches[start:].to_iter_dataset(options)
    yield from ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1))


class _Failed:
    def __init__(self, error: BaseException):
        self.error = error
