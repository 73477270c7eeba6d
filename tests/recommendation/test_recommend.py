"""Recommending, new people, model files and export for indices of nearest neighbours."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from jaxmodels.data.interactions import of_lists
from jaxmodels.recommendation.ann_export import export_items, item_vectors, merge_by_minimum, user_queries
from jaxmodels.recommendation.lrml import lrml
from jaxmodels.recommendation.model_file import load_recommender, save_recommender
from jaxmodels.recommendation.new_users import new_user_vectors, recommend_new
from jaxmodels.recommendation.norms import to_sphere
from jaxmodels.recommendation.recommend import Recommender, recommend

USERS, ITEMS, DIM, VECTORS = 7, 30, 4, 3
RANDOM = np.random.default_rng(0)
SEEN = of_lists([RANDOM.choice(ITEMS, size, replace=False) for size in (0, 3, 5, 2, 9, 1, 29)], ITEMS)
USER, ITEM = RANDOM.normal(size=(USERS, VECTORS, DIM)), RANDOM.normal(size=(ITEMS, DIM))
USER /= np.linalg.norm(USER, axis=-1, keepdims=True)
HAS = np.arange(VECTORS)[None] < np.array([3, 1, 2, 3, 3, 2, 3])[:, None]
MODEL = Recommender(
    "nearest", {"user": USER.reshape(USERS, -1).astype(np.float32), "item": ITEM.astype(np.float32)}, SEEN
)


def slow(user, k, *, seen=True, has=None):
    """The k nearest items, from a table of differences."""
    far = ((USER[user][:, None] - ITEM[None]) ** 2).sum(-1)
    far = (far if has is None else far[has[user]]).min(0)
    far[SEEN.items[SEEN.starts[user] : SEEN.starts[user + 1]] if seen else []] = np.inf
    return np.argsort(far, kind="stable")[:k], far


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("has", [None, HAS], ids=["all", "some"])
def test_the_best_items_are_the_nearest(seen, has):
    found = recommend(MODEL._replace(has=has), [4, 0, 2], 6, exclude_seen=seen, chunk=2)
    for row, user in enumerate((4, 0, 2)):
        best, far = slow(user, 6, seen=seen, has=has)
        assert found.items[row].tolist() == best.tolist()
        np.testing.assert_allclose(found.scores[row], -far[best], rtol=1e-4, atol=1e-5)


def test_where_nothing_is_left_the_score_says_so():
    found = recommend(MODEL, [6], 3)
    assert np.isfinite(found.scores[0]).tolist() == [True, False, False]


def test_users_and_items_go_by_their_own_names():
    named = MODEL._replace(users=np.array([f"u{i}" for i in range(USERS)]), items=np.arange(ITEMS) * 10 + 1000)
    found = recommend(named, ["u4", "u0"], 4)
    assert found.items[0].tolist() == [1000 + 10 * i for i in slow(4, 4)[0]]
    with pytest.raises(ValueError, match="user 'u9': the model knows none of that name"):
        recommend(named, ["u1", "u9"], 4)


@pytest.mark.parametrize(
    ("users", "k", "message"),
    [([0], 31, "k: found 31, expected 1 to 30, the number of items"), ([0], 0, "k: found 0"),
     ([7], 2, "user 7: expected 0 to 6"), ([-1], 2, "user -1: expected 0 to 6"),
     (["a"], 2, "user 'a': expected a number")],
)  # fmt: skip
def test_questions_that_have_no_answer(users, k, message):
    with pytest.raises(ValueError, match=message):
        recommend(MODEL, users, k)


def test_nobody_asks_and_gets_nothing():
    assert recommend(MODEL, np.zeros(0, int), 3).items.shape == (0, 3)


@pytest.mark.parametrize("kind", ["sfcml", "lrml", "transcf"])
def test_other_kinds_score_as_their_methods(kind, tmp_path):
    params = {"user": USER[:, 0].astype(np.float32), "item": ITEM.astype(np.float32)}
    if kind == "lrml":
        params |= {name: np.asarray(lrml(1, 1, dim=DIM, memories=2).init(jax.random.key(0), None)["params"][name])
                   for name in ("key", "memories")}  # fmt: skip
    model = MODEL._replace(kind=kind, params=params)
    found = recommend(model, [1, 2], 5, exclude_seen=False)
    u, v = params["user"][[1, 2]], params["item"]
    if kind == "sfcml":
        scores = 2 * u @ v.T
    elif kind == "lrml":
        logits = (u[:, None] * v[None]) @ params["key"]
        share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        scores = -((u[:, None] + share @ params["memories"] - v[None]) ** 2).sum(-1)
    else:
        of_user = np.stack([v[SEEN.items[SEEN.starts[i] : SEEN.starts[i + 1]]].mean(0) for i in (1, 2)])
        holders = [SEEN.users[SEEN.items == i] for i in range(ITEMS)]
        of_item = np.stack([params["user"][h].mean(0) if len(h) else np.zeros(DIM) for h in holders])
        scores = -((u[:, None] + of_user[:, None] * of_item[None] - v[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(found.items, np.argsort(-scores, axis=1, kind="stable")[:, :5])
    save_recommender(tmp_path, model)
    np.testing.assert_array_equal(
        recommend(load_recommender(tmp_path), [1, 2], 5, exclude_seen=False).items, found.items
    )
    if kind != "sfcml":
        with pytest.raises(ValueError, match=f"a model of kind '{kind}'"):
            item_vectors(model)
        with pytest.raises(ValueError, match=f"a model of kind '{kind}'"):
            new_user_vectors(model, [[1]])


def test_a_saved_model_answers_alike(tmp_path):
    model = MODEL._replace(has=HAS, users=np.array(["a b", *"cdefgh"]), items=np.arange(ITEMS) + 5)
    save_recommender(tmp_path, model)
    back = load_recommender(tmp_path)
    one, two = (recommend(each, ["c", "a b"], 4) for each in (model, back))
    np.testing.assert_array_equal(one.items, two.items)
    np.testing.assert_array_equal(one.scores, two.scores)
    header = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**header, "kind": "nearer"}))
    with pytest.raises(ValueError, match="model.json: recommender: found kind 'nearer', expected one of nearest"):
        load_recommender(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**header, "users": ["a"]}))
    with pytest.raises(ValueError, match="found 1 users, expected 7"):
        load_recommender(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ValueError, match="model.json: is no JSON"):
        load_recommender(tmp_path)
    with pytest.raises(ValueError, match="found no such file"):
        load_recommender(tmp_path / "nowhere")


@pytest.mark.parametrize("has", [None, HAS], ids=["all", "some"])
def test_an_exact_index_asked_with_every_vector_gives_the_models_order(tmp_path, has):
    model, users, k = MODEL._replace(has=has), [4, 1, 3], 5
    export_items(model, tmp_path / "index")
    vectors = np.load(tmp_path / "index" / "items.npy")
    about = json.loads((tmp_path / "index" / "index.json").read_text())
    assert vectors.dtype == np.float32 and vectors.flags.c_contiguous and about["distance"] == "squared L2"
    asked = user_queries(model, users)
    assert len(asked.vectors) == (9 if has is None else HAS[users].sum())
    far, found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(vectors).kneighbors(asked.vectors)
    merged = merge_by_minimum(found, far**2, asked.owner, k)
    expected = recommend(model, users, k, exclude_seen=False)
    for (items, distances), wanted, scores in zip(merged, expected.items, expected.scores, strict=True):
        assert items.tolist() == wanted.tolist()
        np.testing.assert_allclose(distances, -scores, rtol=1e-3, atol=1e-5)
    gaps = merge_by_minimum(np.array([[3, -1], [3, 4]]), np.array([[0.5, 0.0], [0.2, 0.9]]), np.array([0, 0]), 5)
    assert gaps[0][0].tolist() == [3, 4] and gaps[0][1].tolist() == [0.2, 0.9]


def clusters():
    """Items in three tight groups on the sphere."""
    centres = np.eye(3, DIM)
    item = np.repeat(centres, 10, 0) + 0.05 * np.random.default_rng(1).normal(size=(30, DIM))
    return MODEL._replace(params={**MODEL.params, "item": np.asarray(to_sphere(jnp.asarray(item, jnp.float32)))})


@pytest.mark.parametrize("how", ["average", "optimise"])
def test_new_users_get_more_of_each_of_their_interests(how):
    model = clusters()
    liked = [[0, 1, 2, 10, 11], [20, 21]]
    vectors = new_user_vectors(model, liked, how=how)
    assert vectors.shape == (2, VECTORS, DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-4)
    found = recommend_new(model, liked, 8, how=how).items
    assert set(found[1]) <= set(range(22, 30)) and not set(found[0]) & set(liked[0])
    assert set(found[0]) <= set(range(20)) and {i // 10 for i in found[0]} == {0, 1}


@pytest.mark.parametrize("vectors", [1, VECTORS])
def test_optimising_lowers_the_loss_of_hard_sampling(vectors):
    model = MODEL._replace(params={**MODEL.params, "user": MODEL.params["user"][:, : vectors * DIM]})
    liked, random = [4, 5, 6], np.random.default_rng(0)
    others = [random.choice(np.delete(np.arange(ITEMS), liked), (len(liked), 10)) for _ in range(100)]

    def loss(how):
        mine = new_user_vectors(model, [liked], how=how)[0]
        far = ((mine[:, None] - model.params["item"][None]) ** 2).sum(-1).min(0)
        return np.mean([np.maximum(1 + far[liked] - far[drawn].min(1), 0).sum() for drawn in others])

    assert loss("optimise") < 0.95 * loss("average")


def test_new_users_without_items_or_with_unknown_ones():
    with pytest.raises(ValueError, match="user 1 has no item"):
        new_user_vectors(MODEL, [[1], []])
    with pytest.raises(ValueError, match="item 99: expected 0 to 29"):
        new_user_vectors(MODEL, [[1, 99]])
    with pytest.raises(ValueError, match="how: found 'guess'"):
        new_user_vectors(MODEL, [[1]], how="guess")
    with pytest.raises(ValueError, match="new users: found none, expected a list of items for each"):
        recommend_new(MODEL, [], 3)
    with pytest.raises(ValueError, match="steps: found -1, expected at least 1"):
        recommend_new(MODEL, [[1]], 3, how="optimise", steps=-1)


@pytest.mark.parametrize("ids", [[[1, 2], [3]], [[1, 2], [3, 4]], [1, None]])
def test_ids_that_are_no_list_of_ids(ids):
    with pytest.raises(ValueError, match=r"users: found \[.*, expected a list of ids"):
        recommend(MODEL, ids, 3)
