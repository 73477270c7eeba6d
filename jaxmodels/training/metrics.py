"""Where a run's numbers go: metrics.jsonl (one JSON object a line) and TensorBoard events, both append-only."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from jaxmodels.atomic import write_text


class MetricsWriter:
    """Writes scalars by step; after a resume, lines beyond the resumed step are removed first."""

    def __init__(self, workdir: str | Path, *, resumed_at: int | None = None):
        self.path = Path(workdir) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [] if resumed_at is None else [row for row in read_metrics(self.path) if row["step"] <= resumed_at]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._lines = self.path.open("a", encoding="utf-8")
        purge = None if resumed_at is None else resumed_at + 1
        self._events = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=purge)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line and one event per value; what is not finite is null in the line and no event."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if finite[name] is None:
                continue  # TensorBoard shows no such point; its writer warns of each
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        self._lines.close()
        self._events.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; a line cut off by a kill is left out, a missing file has no rows."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
