"""N2, GCN, GAT and GIN: accuracy over splits and seeds, and CPU seconds per epoch beside PyTorch's.

    python -m benchmarks.graphs --data_dir=data/graphs --parts speed --datasets minesweeper cora
    python -m benchmarks.graphs --data_dir=data/graphs --parts batches
    python -m benchmarks.graphs --data_dir=data/graphs --parts accuracy --runs=runs/graphs.jsonl --seeds 0
    python -m benchmarks.graphs --data_dir=data/graphs --parts table --runs=runs/graphs.jsonl

Measured: what part of the CPU seconds of a PyTorch N2 in the released code's structure an epoch of N2 takes, whether N2
reaches its published AUC on minesweeper, and how it stands among its peers; docs/benchmarks_graphs.md says what came
out, and how each was tuned. Peers are ours, and PyTorch Geometric's in 'speed' and where --pyg names them. 'accuracy'
trains what the file of runs lacks and may be stopped and started at will; 'table' only reads; 'batches' is the speed on
many small graphs. Needs the extra [peers] for 'speed', 'batches' and --pyg.
"""

import argparse
import os
import platform
from pathlib import Path

# Before JAX starts: one thread on both sides, or seconds cannot be compared.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax

from benchmarks import graph_accuracy
from benchmarks.graph_data import NODE_SETS
from jaxmodels.training.memory import reuse_freed_memory

SETS = ["cora", "actor", "chameleon_filtered", "texas", "wisconsin", "cornell", "minesweeper"]
PARTS = ("speed", "batches", "accuracy", "table")
PEERS = ["gcn", "gat", "gin"]  # that PyTorch Geometric trains as well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="holds a folder per data set")
    parser.add_argument("--datasets", nargs="+", choices=NODE_SETS, default=SETS)
    parser.add_argument("--methods", nargs="+", choices=graph_accuracy.METHODS, default=["n2", *PEERS])
    parser.add_argument("--pyg", nargs="*", choices=PEERS, default=[], help="peers that PyTorch trains as well")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--drawn", type=int, default=0, help="random configurations of each method, else written ones")
    parser.add_argument(
        "--input_dropout", action="store_true", help="drawn ones have a dropout of the features as well"
    )
    parser.add_argument("--tuning", type=int, default=3, help="splits that choose a configuration")
    parser.add_argument("--splits", type=int, default=10, help="of each data set that are trained, --tuning or more")
    parser.add_argument("--epochs", type=int, default=1000, help="at most, beside early stopping")
    parser.add_argument("--patience", type=int, default=200, help="epochs without a better validation loss")
    parser.add_argument("--repeats", type=int, default=5, help="of each timing")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["speed", "table"])
    parser.add_argument("--runs", type=Path, default=Path("graph_runs.jsonl"), help="the file of finished runs")
    a = parser.parse_args()
    if not 1 <= a.tuning <= a.splits <= 10:
        parser.error(f"--tuning={a.tuning} --splits={a.splits}: expected 1 <= tuning <= splits <= 10")
    if a.drawn < 0:
        parser.error(f"--drawn={a.drawn}: expected 0 or more")
    if a.input_dropout and not a.drawn:
        parser.error("--input_dropout: found --drawn=0, expected drawn configurations")
    if "speed" in a.parts and not {"n2", *PEERS}.issuperset(a.methods):
        parser.error(f"--methods {' '.join(a.methods)}: expected none but n2, {', '.join(PEERS)} for --parts speed")
    reuse_freed_memory()
    print(f"{platform.machine()}, {jax.local_devices()[0].device_kind}, jax {jax.__version__}, one thread")
    if "speed" in a.parts:
        from benchmarks.graph_speed import compare

        compare(a.data_dir, a.datasets, a.methods, a.repeats)
    if "batches" in a.parts:
        from benchmarks import graph_batches

        graph_batches.compare(a.data_dir, list(graph_batches.STEPS), a.repeats)
    protocol = graph_accuracy.Protocol(a.drawn, a.input_dropout, a.tuning, a.splits, a.epochs, a.patience)
    records = graph_accuracy.Records(a.runs, protocol)
    if "accuracy" in a.parts:
        methods = [*a.methods, *(graph_accuracy.PYG + m for m in a.pyg)]
        graph_accuracy.train_missing(a.data_dir, records, a.datasets, methods, a.seeds)
    if "accuracy" in a.parts or "table" in a.parts:
        graph_accuracy.table(records, a.datasets, a.methods, a.seeds)


if __name__ == "__main__":
    main()
