"""Small graph data sets as their publishers lay them out."""

import gzip
import pickle

import numpy as np
import scipy.sparse

from jaxmodels.data.planetoid import VAL


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(text.encode()))
    else:
        file.write_text(text)
    return file


def planetoid_parts(name="cora"):
    """Two classes, 4 training nodes, VAL + 2 more, then nodes VAL + 6 .. VAL + 9 of which VAL + 7 is in no file."""
    start = VAL + 6
    test = [start + 3, start, start + 2]
    x = np.zeros((start, 3), np.float32)
    x[np.arange(start), np.arange(start) % 3] = 1
    tx = np.array([[3, 0, 0], [0, 0, 0], [2, 0, 0]], np.float32)
    classes = np.eye(2, dtype=np.int32)
    graph = {i: [] for i in range(start + 4)}
    graph |= {0: [1, 1, 2], 1: [0], 5: [5], start: [0, start + 1]}
    return {
        "x": scipy.sparse.csr_matrix(x[:4]),
        "allx": scipy.sparse.csr_matrix(x),
        "tx": scipy.sparse.csr_matrix(tx),
        "y": classes[[0, 0, 1, 1]],
        "ally": classes[np.arange(start) % 2],
        "ty": classes[[1, 1, 1]],
        "graph": graph,
        "test.index": "".join(f"{i}\n" for i in test),
    }


def save_planetoid(folder, parts, name="cora"):
    folder.mkdir(parents=True, exist_ok=True)
    for part, value in parts.items():
        file = folder / f"ind.{name}.{part}"
        if isinstance(value, str):
            file.write_text(value)
        else:
            file.write_bytes(pickle.dumps(value, 2))
    return folder


def tu_files(folder, **changes):
    """Two graphs, a path of three nodes and an edge."""
    files = {
        "A": "1, 2\n2, 1\n2, 3\n3, 2\n5, 4\n4, 5\n4, 5\n",
        "graph_indicator": "1\n1\n1\n2\n2\n",
        "graph_labels": "1\n-1\n",
        "node_labels": "4\n0\n4\n0\n7\n",
        "node_attributes": "0.5, 1\n1.5, 1\n2.5, 1\n3.5, 1\n4.5, 1\n",
        "edge_labels": "3\n3\n5\n5\n3\n3\n5\n",
    }
    for part, text in (files | changes).items():
        if text is not None:
            write(folder / f"{folder.name}_{part}.txt", text)
    return folder


GIN = "2\n3 1\n4 1 1\n0 2 0 2\n4 1 1\n2 -1\n0 1 1\n7 0\n"


def gin_files(folder, text=GIN, folds=("1\n", "0\n")):
    write(folder / f"{folder.name}.txt", text)
    for i in range(1, 11):
        write(folder / f"10fold_idx/train_idx-{i}.txt", folds[0])
        write(folder / f"10fold_idx/test_idx-{i}.txt", folds[1])
    return folder


OGB_GRAPHS = {
    "raw/edge.csv.gz": "0,1\n1,2\n1,0\n",
    "raw/num-node-list.csv.gz": "3\n2\n1\n",
    "raw/num-edge-list.csv.gz": "2\n1\n0\n",
    "raw/node-feat.csv.gz": "1,2\n3,4\n5,6\n7,8\n9,10\n11,12\n",
    "raw/edge-feat.csv.gz": "0\n1\n2\n",
    "raw/graph-label.csv.gz": "1,,0\nnan,1,\n,,1\n",
    "split/scaffold/train.csv.gz": "0\n",
    "split/scaffold/valid.csv.gz": "1\n",
    "split/scaffold/test.csv.gz": "2\n",
}
OGB_NODES = {
    "raw/edge.csv": "0,1\n1,2\n1,2\n2,2\n",
    "raw/num-node-list.csv": "4\n",
    "raw/num-edge-list.csv": "4\n",
    "raw/node-feat.csv": "0.5,1\n1.5,1\n2.5,1\n3.5,1\n",
    "raw/node-label.csv": "3\n0\n1\n3\n",
    "split/time/train.csv": "0\n2\n",
    "split/time/valid.csv": "1\n",
    "split/time/test.csv": "3\n",
}


def ogb_files(folder, files, **changes):
    for name, text in (files | changes).items():
        if text is not None:
            write(folder / name, text)
    return folder
