"""Model selection while training: which model is tested, and its tuner file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jaxmodels as jm
from experiments.runs import Built, Setup
from jaxmodels.data.batches import eval_batches
from jaxmodels.data.tasks import Task
from jaxmodels.training.mesh import fetch, local_rows, row_shards
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.processes import is_main, wait_for_all
from jaxmodels.tuning.tuner_file import save_tuner

EVALUATION_BATCH = 200


class Judge:
    """Model selection: called while training it returns accuracies and keeps the best model's tuner file."""

    def __init__(
        self,
        built: Built,
        setup: Setup,
        task: Task,
        sources: Mapping[str, Any],
        folder: Path,
        select: str,
        outputs: int,
    ):
        self.file = folder / "tuner.safetensors"
        self._built, self._setup, self._task, self._sources = built, setup, task, sources
        self._select, self._outputs = select, outputs
        self._metric = "val_accuracy" if select in ("best_val", "validate") else "test_accuracy"
        # A resumed run goes on comparing with the best so far.
        rows = [row for row in read_metrics(folder / "metrics.jsonl") if row.get("test_accuracy") is not None]
        best = max(rows, key=lambda row: row[self._metric], default=None)
        self._best = -1.0 if best is None else best[self._metric]
        self._tested = float("nan") if best is None else best["test_accuracy"]

    def __call__(self, variables: Any) -> dict[str, float]:
        """Metrics at one moment of training; ties go to the earlier model."""
        found = {}
        if self._metric == "val_accuracy":
            found["val_accuracy"] = self._accuracy(variables, "val")
            if found["val_accuracy"] <= self._best:
                return found  # the test split is large and would not change the choice
        found["test_accuracy"] = self._accuracy(variables, "test")
        if found[self._metric] > self._best:
            self._best, self._tested = found[self._metric], found["test_accuracy"]
            self._save(variables)
        return found

    def final(self, variables: Any) -> float:
        """Accuracy of the selected model in [0, 1]: on the test split, or of a candidate on the validation split."""
        if self._select in ("best_val", "best_test"):
            return self._tested
        self._save(variables)
        return self._accuracy(variables, "val" if self._select == "validate" else "test")

    def bytes(self) -> int:
        """Size of the tuner file; all processes see it."""
        wait_for_all(f"{self.file.name} is written")
        return self.file.stat().st_size

    def _accuracy(self, variables: Any, name: str) -> float:
        mesh, size = self._setup.mesh, min(EVALUATION_BATCH, len(self._sources[name]))
        if mesh is not None:  # a multiple of the devices; the rest is padding
            size = -(-size // row_shards(mesh)) * row_shards(mesh)
        padded = eval_batches(self._sources[name], size, rows=local_rows(mesh, size))
        return jm.evaluate(self._built.method, variables, padded, mesh=mesh)["accuracy"]

    def _save(self, variables: Any) -> None:
        task = {
            "name": self._task.name,
            "num_classes": self._task.num_classes,
            "normalisation": self._task.normalisation,
            "class_names": list(self._task.class_names or ()),
        }
        tuner, head = self._built.tuner, self._built.head
        variables = fetch(variables)  # all processes together, where each holds a part
        if not is_main():
            return
        save_tuner(self.file, tuner, self._setup.backbone, variables, num_classes=self._outputs, head=head, task=task)
