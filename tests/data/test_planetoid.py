import numpy as np
import pytest
import scipy.sparse

from jaxmodels.data.planetoid import VAL, planetoid
from tests.data.graph_folders import planetoid_parts, save_planetoid

START = VAL + 6


def test_the_rows_of_test_nodes_go_where_the_index_says(tmp_path):
    parts = planetoid_parts()
    data = planetoid(save_planetoid(tmp_path, parts), "cora")
    assert data.x.shape == (START + 4, 3) and data.x.dtype == np.float32
    np.testing.assert_array_equal(data.x[:START], parts["allx"].toarray())
    assert data.x[START:].tolist() == [[0, 0, 0], [0, 0, 0], [2, 0, 0], [3, 0, 0]]
    assert data.labels[START:].tolist() == [1, 0, 1, 1]  # the second is in no file
    assert data.labels[:4].tolist() == [0, 1, 0, 1]
    edges = list(zip(data.senders.tolist(), data.receivers.tolist(), strict=True))
    assert edges == [(0, 1), (0, 2), (0, START), (1, 0), (2, 0), (START, 0), (START, START + 1), (START + 1, START)]
    (split,) = data.splits
    assert split.train.tolist() == [0, 1, 2, 3] and split.val.tolist() == list(range(4, VAL + 4))
    assert split.test.tolist() == [START + 3, START, START + 2]
    assert (data.num_classes, data.metric) == (2, "accuracy") and "8 directed edges" in data.description


def test_features_stay_sparse_on_request(tmp_path):
    folder = save_planetoid(tmp_path, planetoid_parts())
    sparse, dense = planetoid(folder, "cora", dense=False).x, planetoid(folder, "cora").x
    assert scipy.sparse.issparse(sparse) and sparse.format == "csr"
    np.testing.assert_array_equal(sparse.toarray(), dense)


def test_the_ten_fixed_splits(tmp_path):
    folder = save_planetoid(tmp_path, planetoid_parts())
    for i in range(10):
        part = np.arange(START + 4) % 11
        masks = {f"{name}_mask": part == (i + k) % 11 for k, name in enumerate(("train", "val", "test"))}
        if i % 2:
            masks = {name: mask.astype(np.uint8) for name, mask in masks.items()}
        np.savez(folder / f"cora_split_0.6_0.2_{i}.npz", **masks)
    splits = planetoid(folder, "cora", splits="geom-gcn").splits
    assert len(splits) == 10 and splits[3].train[0] == 3 and splits[3].val[0] == 4 and splits[9].test[0] == 0
    (folder / "cora_split_0.6_0.2_7.npz").unlink()
    with pytest.raises(ValueError, match="expected cora_split_0.6_0.2_7.npz"):
        planetoid(folder, "cora", splits="geom-gcn")
    with pytest.raises(ValueError, match="splits='random': expected public or geom-gcn"):
        planetoid(folder, "cora", splits="random")


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"test.index": f"{START}\n{START + 1}\n"}, "2 test nodes, 3 rows of tx"),
        ({"test.index": f"{START + 1}\n{START + 2}\n{START + 3}\n"}, f"nodes from {START} on"),
        ({"test.index": f"{START - 1}\n{START}\n{START + 2}\n"}, f"nodes from {START} on.*found {START - 1}"),
        ({"test.index": f"{START}\n{START}\n{START + 2}\n"}, "distinct nodes"),
        ({"test.index": f"{START}\nx\n{START + 2}\n"}, "test.index:2: expected 1 integers, found 'x'"),
        ({"graph": {0: [1, START + 4]}}, rf"ind.cora.graph: edge 1 is \(0, {START + 4}\)"),
        ({"graph": {0: ["1"]}}, "expected node -> list of nodes, found 0 -> "),
        ({"graph": [0]}, "expected node -> neighbours, found list"),
        ({"ty": np.eye(3)}, "widths of tx and allx, or of ty and ally, differ"),
        ({"ally": np.ones(4)}, "ind.cora.ally: expected labels"),
        ({"allx": np.ones((3, 2))}, "ind.cora.allx: expected a CSR matrix"),
        ({"allx": scipy.sparse.csr_matrix(np.full((START, 3), np.nan))}, "features of row 0 hold NaN"),
        ({"y": np.ones((7, 2))}, "val and test share 1 indices"),
        ({"tx": np.array([None])}, "ind.cora.tx: expected a pickle of plain data: refused an array of dtype 'O"),
        ({"tx": print}, "ind.cora.tx: .*refused '__builtin__.print'"),
    ],
)
def test_what_does_not_fit_is_one_error(tmp_path, change, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        planetoid(save_planetoid(tmp_path, planetoid_parts() | change), "cora")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected ind.cora.y \(a pickle of the Planetoid layout\), found no such folder"
    ):
        planetoid(tmp_path / "none", "cora")
    folder = save_planetoid(tmp_path, planetoid_parts())
    (folder / "ind.cora.test.index").unlink()
    with pytest.raises(ValueError, match="expected ind.cora.test.index .one node per line., found ind.cora.allx"):
        planetoid(folder, "cora")
