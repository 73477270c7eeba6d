import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.data.query_structures import STRUCTURES, name_of
from jaxmodels.reasoning import language
from jaxmodels.reasoning.language import QueryError, parse
from tests.reasoning.small import ENTITIES, RELATIONS, brute_force, random_graph

ENTITY_NAMES = ("france", "nobel", "Marie Curie", "it's", "/m/027rn")
RELATION_NAMES = ("/people/person/born_in", "won", "/award/nominee./award/year", "/film/film/year", "is a", "likes")


def read(text):
    return parse(text, entities=ENTITY_NAMES, relations=RELATION_NAMES)


def test_the_example_reads_as_it_sounds():
    question = read("people.born_in(france) & ~won(nobel)")
    assert name_of(question.structure) == "2in"
    assert question.tokens.tolist() == [[0, 1, 1, 3, -2]]  # inverse relations lead from France to those born there


@pytest.mark.parametrize(
    "text, name, tokens",
    [
        ("won(nobel)", "1p", [1, 3]),
        ("won^-1('Marie Curie')", "1p", [2, 2]),
        ('likes(won( "it\'s" ))', "2p", [3, 3, 11]),
        ("won('it''s') & won(nobel) & won(france)", "3i", [3, 3, 1, 3, 0, 3]),
        ("(won(nobel) & won(france)) & likes(/m/027rn)", "3i", [1, 3, 0, 3, 4, 11]),
        ("likes(won(nobel) & ~won(france))", "inp", [1, 3, 0, 3, -2, 11]),
        ("~likes(won(nobel)) & won(france)", "pni", [1, 3, 11, -2, 0, 3]),
        ("won(nobel) | won(france)", "2u-DNF", [1, 3, 0, 3, -1]),
        ("won(nobel | france)", "2u-DNF", [1, 3, 0, 3, -1]),
        ("likes(won(nobel | france))", "up-DNF", [1, 3, 0, 3, -1, 11]),
        ("~(~won(nobel) & ~won(france))", "2u-DM", [1, 3, -2, 0, 3, -2, -2]),
        ("~~won(nobel)", "1p", [1, 3]),
        ("nominee.year(nobel)", "1p", [1, 5]),
        ("film.year^-1(nobel)", "1p", [1, 6]),
        ("'is a'(nobel)", "1p", [1, 9]),
    ],
)
def test_queries_become_structures_and_tokens(text, name, tokens):
    question = read(text)
    assert STRUCTURES[name] == question.structure and question.tokens.tolist() == [tokens]
    assert question.text == text


ENTITY = st.integers(0, ENTITIES - 1)
CALL = st.tuples(st.just("call"), st.integers(0, RELATIONS // 2 - 1), st.booleans())


def trees(children):
    return (
        st.tuples(CALL, children)
        | st.tuples(st.just("~"), children)
        | st.tuples(st.sampled_from("&|"), children, children)
    )


QUERIES = st.recursive(st.tuples(CALL, ENTITY | st.tuples(st.just("or"), ENTITY, ENTITY)), trees, max_leaves=5)


def written(tree):
    match tree:
        case int():
            return f"e{tree}"
        case ("or", one, two):
            return f"e{one} | e{two}"
        case ("~", inside):
            return f"~({written(inside)})"
        case (("call", relation, forward), inside):
            return f"r{relation}{'^-1' if forward else ''}({written(inside)})"
        case (mark, one, two):
            return f"({written(one)} {mark} {written(two)})"


def meant(tree, edges):
    match tree:
        case int():
            return {tree}
        case ("or", one, two):
            return {one, two}
        case ("~", inside):
            return set(range(ENTITIES)) - meant(inside, edges)
        case (("call", relation, forward), inside):
            ends = meant(inside, edges)
            if forward:
                return {t for h, r, t in edges if r == 2 * relation and h in ends}
            return {h for h, r, t in edges if r == 2 * relation and t in ends}
        case ("&", one, two):
            return meant(one, edges) & meant(two, edges)
        case ("|", one, two):
            return meant(one, edges) | meant(two, edges)


@given(QUERIES, st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_a_query_means_what_its_words_say(tree, seed):
    graph = random_graph(seed)
    names = {"entities": [f"e{i}" for i in range(ENTITIES)], "relations": [f"r{i}" for i in range(RELATIONS // 2)]}
    question = parse(written(tree), **names)
    assert brute_force(graph, question.structure, question.tokens[0]) == meant(tree, graph.edges.tolist())


@pytest.mark.parametrize("inside", ["~france", "~(france | nobel)", "~~france", "france | won(nobel)"])
def test_entities_alone_are_read_below_a_relation(inside):
    names = {"entities": ["e0", "france", "nobel"], "relations": ["won"]}
    graph = random_graph(1)
    question = parse(f"won({inside})", **names)
    france, nobel, all_of = {1}, {2}, set(range(ENTITIES))
    edges = {(h, t) for h, r, t in graph.edges.tolist() if r == 0}
    sets = {
        "~france": all_of - france,
        "~(france | nobel)": all_of - france - nobel,
        "~~france": france,
        "france | won(nobel)": france | {h for h, t in edges if t == 2},
    }
    expected = {h for h, t in edges if t in sets[inside]}
    assert brute_force(graph, question.structure, question.tokens[0]) == expected


@pytest.mark.parametrize(
    "text, column, reason",
    [
        ("", 1, "found an empty query, expected such as relation(entity)"),
        ("  ", 1, "found an empty query"),
        ("won(frnace)", 5, "no entity 'frnace'; did you mean 'france'?"),
        ("wun(france)", 1, "no relation 'wun'; did you mean 'won'?"),
        ("people.bron_in(france)", 1, "no relation 'people.bron_in'; did you mean '/people/person/born_in'?"),
        ("film.won(nobel)", 1, "no relation 'film.won'; did you mean 'won'?"),
        ("year(nobel)", 1, "'year' may be '/award/nominee./award/year' or '/film/film/year', expected one of them"),
        ("'born_in'(nobel)", 1, "no relation 'born_in'; did you mean '/people/person/born_in'?"),
        ("won()", 4, "won has no argument, expected one"),
        ("won(france, nobel)", 11, "won has several arguments, expected one; 'or' is |, 'and' is &"),
        ("won(france", 11, "found the end, expected '&', '|' or ')'"),
        ("won(france))", 12, "found ')', expected '&', '|' or the end"),
        ("france", 1, "found an entity alone, expected a relation around it, such as r(...)"),
        ("won(france) & nobel", 15, "found an entity beside '&', expected a relation around it"),
        ("won & likes(nobel)", 1, "no entity 'won'; it is a relation, which takes an argument: won(...)"),
        ("won^(france)", 4, "found '^'; the inverse of a relation is ^-1"),
        ("won^-1 france", 8, "found 'france', expected '(' after ^-1"),
        ('won("france)', 5, "found a quote that does not end"),
        ("~", 2, "found the end, expected a name, '(' or '~'"),
        ("& won(nobel)", 1, "found '&', expected a name, '(' or '~'"),
        (".(nobel)", 1, "no relation '.'"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_column(text, column, reason):
    with pytest.raises(QueryError) as error:
        read(text)
    line = str(error.value)
    assert line.startswith(f"query, column {column}: {reason}") and "\n" not in line
    assert line.endswith(f": {text[: column - 1]}>>>{text[column - 1 :]}")
    assert error.value.caret().splitlines()[1].index("^") == column - 1


def test_near_names_among_very_many_share_their_first_letters(monkeypatch):
    names = [f"xy{i}" for i in range(20)] + ["france"]
    monkeypatch.setattr(language, "MANY", 10)
    assert language.near("frnce", names) == "; did you mean 'france'?"
    assert language.near("Xrance", names) == ""


def test_a_name_with_blanks_is_told_to_stand_in_quotes():
    with pytest.raises(QueryError, match="no entity 'lives'; names with blanks stand in quotes: 'lives in'"):
        parse("lives in(france)", entities=("france",), relations=("lives in",))


def test_a_caret_stands_below_its_column_in_a_query_of_several_lines():
    with pytest.raises(QueryError) as error:
        parse("won(nobel)\n& won(x)", entities=("nobel",), relations=("won",))
    line, caret = error.value.caret().split("\n")
    assert line[caret.index("^")] == "x"
