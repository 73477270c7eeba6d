import numpy as np
import pytest
import scipy.sparse

from jaxmodels.data.graph_files import random_split
from jaxmodels.data.graph_npz import gnn_benchmark, heterophilous

X = np.arange(10, dtype=np.float64).reshape(5, 2)
MASKS = np.eye(5, dtype=bool)


def hetero(tmp_path, **changes):
    arrays = {
        "node_features": X,
        "node_labels": np.array([0, 1, 1, 0, 2]),
        "edges": np.array([[3, 0], [0, 1], [3, 0], [2, 2]]),
        "train_masks": MASKS[[0, 1]] | MASKS[[4, 4]],
        "val_masks": MASKS[[1, 2]],
        "test_masks": MASKS[[2, 3]],
    }
    arrays |= changes
    np.savez(tmp_path / "tiny.npz", **{name: array for name, array in arrays.items() if array is not None})
    return tmp_path / "tiny.npz"


def test_a_heterophilous_graph_has_both_directions_and_all_splits(tmp_path):
    data = heterophilous(hetero(tmp_path))
    assert data.x.dtype == np.float32 and data.x.tolist() == X.tolist()
    assert data.senders.tolist() == [0, 0, 1, 2, 3] and data.receivers.tolist() == [1, 3, 0, 2, 0]
    assert [[part.tolist() for part in split] for split in data.splits] == [[[0, 4], [1], [2]], [[1, 4], [2], [3]]]
    assert data.labels.tolist() == [0, 1, 1, 0, 2] and data.num_classes == 3 and data.metric == "accuracy"
    directed = heterophilous(hetero(tmp_path), undirected=False)
    assert directed.senders.tolist() == [0, 2, 3] and directed.receivers.tolist() == [1, 2, 0]
    assert heterophilous(hetero(tmp_path, node_labels=np.array([0, 1, 1, 0, 0]))).metric == "roc_auc"


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"edges": np.array([[0, 5]])}, r"edge 0 is \(0, 5\); expected nodes 0 to 4"),
        ({"edges": np.array([[0, 1, 2]])}, r"integer edges \(E, 2\), found"),
        ({"edges": np.array([[0.0, 1]])}, "integer edges"),
        ({"node_features": np.where(X == 7, np.nan, X)}, "features of row 3 hold NaN"),
        ({"node_features": X[0]}, r"expected node_features \(N, d\)"),
        ({"node_features": X.astype(str)}, "node_features: found <U32, expected real numbers"),
        ({"node_features": X.astype(complex)}, "node_features: found complex128, expected real numbers"),
        ({"node_labels": np.array([0, 1, 1, 0])}, "integer labels"),
        ({"val_masks": MASKS[[0, 1]]}, "split 0: train and val share 1 indices, the first is 0"),
        ({"val_masks": MASKS[[1]]}, r"expected masks \(splits, 5\)"),
        ({"edges": None}, "no array 'edges'"),
        ({"node_labels": np.array([0, 1, 1, 0, {}], object)}, "Object arrays"),
    ],
)
def test_a_heterophilous_graph_that_does_not_fit_is_refused(tmp_path, change, complaint):
    with pytest.raises(ValueError, match=f"tiny.npz: .*{complaint}") as error:
        heterophilous(hetero(tmp_path, **change))
    assert "\n" not in str(error.value)


def benchmark(tmp_path, **changes):
    adjacency = scipy.sparse.csr_matrix((np.ones(4), ([0, 0, 3, 4], [1, 0, 2, 3])), shape=(5, 5))
    features = scipy.sparse.csr_matrix(np.array([[0, 3.0], [-2, 0], [0.5, 1], [0, 0], [0, 7]]))
    arrays = {"labels": np.array([0, 1, 1, 0, 2]), "attr_names": np.array(["a", None], object)}
    for name, matrix in (("adj", adjacency), ("attr", features)):
        arrays |= {f"{name}_{part}": getattr(matrix, part) for part in ("data", "indices", "indptr")}
        arrays[f"{name}_shape"] = np.array(matrix.shape)
    np.savez(tmp_path / "photo.npz", **(arrays | changes))
    return tmp_path / "photo.npz"


def test_a_gnn_benchmark_graph_is_binary_and_symmetric_without_loops(tmp_path):
    data = gnn_benchmark(benchmark(tmp_path), seeds=(0, 5))
    assert data.x.tolist() == [[0, 1], [0, 0], [1, 1], [0, 0], [0, 1]] and data.x.dtype == np.float32
    assert data.senders.tolist() == [0, 1, 2, 3, 3, 4] and data.receivers.tolist() == [1, 0, 3, 2, 4, 3]
    for split, seed in zip(data.splits, (0, 5), strict=True):
        assert all((a == b).all() for a, b in zip(split, random_split(5, seed), strict=True))
    sparse = gnn_benchmark(benchmark(tmp_path), dense=False)
    assert sparse.x.nnz == 4 and sparse.x.toarray().tolist() == data.x.tolist() and len(sparse.splits) == 1
    with pytest.raises(ValueError, match="seeds: expected at least one"):
        gnn_benchmark(benchmark(tmp_path), seeds=())


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"adj_shape": np.array([5, 6])}, r"adjacency \(5, 5\) of 5 nodes, found \(5, 6\)"),
        ({"adj_indices": np.array([1, 0, 2, 5])}, "adj: a CSR matrix .* columns 0 to 5, some outside"),
        ({"adj_indptr": np.array([0, 2, 2, 2, 3, 9])}, "adj: .*row starts do not fit"),
        ({"attr_data": np.ones(2)}, "attr: .*2 values for 5 column indices"),
        ({"attr_data": np.array([1, 2, np.nan, 3, 4])}, "features of row 2 hold NaN"),
        ({"attr_shape": np.array([5])}, "the pieces of a CSR matrix in attr_data"),
        ({"labels": np.array([0, 1])}, "integer labels"),
    ],
)
def test_a_gnn_benchmark_graph_that_does_not_fit_is_refused(tmp_path, change, complaint):
    with pytest.raises(ValueError, match=f"photo.npz: .*{complaint}"):
        gnn_benchmark(benchmark(tmp_path, **change))
