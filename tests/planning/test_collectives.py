import pytest

from jaxmodels.planning.collectives import Collective, collectives


def one(text, devices=8):
    (found,) = collectives(text, devices=devices)
    return found


LAYOUT = "{1,0:T(8,128)(2,1)S(1)}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%a = f32[8,4]{1,0} all-reduce(%x), replica_groups={}", ("all-reduce", 8, 1, 128)),
        ("ROOT a = f32[] all-reduce(f32[] x), replica_groups={{0,2},{1,3}}", ("all-reduce", 2, 1, 4)),
        (
            f"%a = (f32[8,4]{LAYOUT}, /*index=1*/bf16[3]{{0}}) all-reduce(%x, %y), replica_groups=[2,4]<=[8]",
            ("all-reduce", 4, 1, 134),
        ),
        ("%a = f32[16] all-reduce-start(%x), replica_groups=[4,2]<=[2,4]T(1,0)", ("all-reduce", 2, 1, 64)),
        ("%a = (f32[16], s8[3]) all-reduce-start(%x, %y), replica_groups={}", ("all-reduce", 8, 1, 67)),
        (
            f"%a = bf16[16,4]{LAYOUT} all-gather(%x), replica_groups=mesh['a'=4,'b'=2] {{'a'}}, dimensions={{0}}",
            ("all-gather", 4, 1, 128),
        ),
        (
            "%a = bf16[16] all-gather(%x), replica_groups=mesh['a'=4,'b'=2] {'a':(1)2,'b'}",
            ("all-gather", 4, 1, 32),
        ),
        ("%a = (f32[2], f32[16]) all-gather-start(%x), replica_groups={}", ("all-gather", 8, 1, 64)),
        (
            "%a = ((f32[2], u8[1]), (f32[16], u8[8])) all-gather-start(%x, %y), replica_groups={}",
            ("all-gather", 8, 1, 72),
        ),
        ("%a = f32[2] reduce-scatter(f32[16] %x), replica_groups={}", ("reduce-scatter", 8, 1, 64)),
        ("%a = f32[2] reduce-scatter(%undefined), replica_groups=[2,4]<=[8]", ("reduce-scatter", 4, 1, 32)),
        ("%a = ((f32[16]), f32[2]) reduce-scatter-start(%x), replica_groups={}", ("reduce-scatter", 8, 1, 64)),
        ("%a = (s4[6], f8e4m3fn[5]) all-to-all(%x, %y), replica_groups={}", ("all-to-all", 8, 1, 8)),
        (
            "%a = f64[2] collective-permute(%x), source_target_pairs={{0,1},{1,2},{2,0}}",
            ("collective-permute", 3, 1, 16),
        ),
        (
            "%a = (c64[2], c64[2], u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}",
            ("collective-permute", 2, 1, 16),
        ),
        ("%a = pred[7] collective-broadcast(%x), replica_groups={{0,1}}", ("collective-broadcast", 2, 1, 7)),
    ],
)
def test_kinds(line, expected):
    assert one(line) == Collective(*expected)


def test_operands_are_looked_up_where_they_are_defined():
    text = """
%other (x: f32[3]) -> f32[3] {
  %x = f32[3] parameter(0)
}
ENTRY %main (x: f32[12,2]) -> f32[3,2] {
  %x = f32[12,2]{1,0} parameter(0)
  %t = (f32[4]{0}, s32[]) custom-call(%x)
  ROOT %r = f32[3,2]{1,0} reduce-scatter(%x), replica_groups={{0,1,2,3}}, dimensions={0}
}
"""
    assert one(text).bytes == 12 * 2 * 4


def test_a_start_and_its_done_count_once():
    text = """
ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8] parameter(0)
  %s = f32[8] all-reduce-start(%x), channel_id=1, replica_groups={}
  %d = f32[8] all-reduce-done(%s)
  %s2 = (f32[8], f32[64]) all-gather-start(%d), channel_id=2, replica_groups={}
  %d2 = f32[64] all-gather-done(%s2), metadata={op_name="all-gather(x)"}
  ROOT %g = f32[64] copy(%d2)
}
"""
    assert collectives(text, devices=8) == (Collective("all-gather", 8, 1, 256), Collective("all-reduce", 8, 1, 32))


def test_a_wrapped_collective_counts_once():
    text = """
%wrapped (x: f32[8]) -> f32[1] {
  %x = f32[8] parameter(0)
  ROOT %r = f32[1] reduce-scatter(%x), channel_id=4, replica_groups={}
}
ENTRY %main (x: f32[8]) -> f32[1] {
  %x = f32[8] parameter(0)
  %s = ((f32[8]), f32[1], u32[]) async-start(%x), calls=%wrapped
  ROOT %d = f32[1] async-done(%s)
}
"""
    assert collectives(text, devices=8) == (Collective("reduce-scatter", 8, 1, 32),)


def test_one_collective_spread_over_fusions_counts_once_and_two_equal_ones_twice():
    text = """
%start (x: bf16[4]) -> bf16[32] {
  %x = bf16[4] parameter(0)
  ROOT %a1 = bf16[32] all-gather(%x), channel_id=3, replica_groups={}
}
%done (x: bf16[4]) -> bf16[32] {
  %x = bf16[4] parameter(0)
  ROOT %a2 = bf16[32] all-gather(%x), channel_id=3, replica_groups={}
}
ENTRY %main (x: bf16[4]) -> bf16[32] {
  %x = bf16[4] parameter(0)
  %f = bf16[32] fusion(%x), kind=kCustom, calls=%start
  %g = bf16[32] fusion(%x), kind=kCustom, calls=%done
  %b1 = bf16[32] all-gather(%x), channel_id=5, replica_groups={}
  ROOT %b2 = bf16[32] all-gather(%x), channel_id=6, replica_groups={}
}
"""
    assert collectives(text, devices=8) == (Collective("all-gather", 8, 3, 192),)


def test_a_fused_all_reduce_and_slice_is_a_reduce_scatter():
    text = """
%all-reduce-scatter.1 (x: f32[16]) -> f32[2] {
  %x = f32[16] parameter(0)
  %a = f32[16] all-reduce(%x), channel_id=1, replica_groups={}
  ROOT %s = f32[2] dynamic-slice(%a), dynamic_slice_sizes={2}
}
ENTRY %main (x: f32[16]) -> f32[2] {
  %x = f32[16] parameter(0)
  ROOT %f = f32[2] fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
    assert collectives(text, devices=8) == (Collective("reduce-scatter", 8, 1, 64),)


def test_names_and_metadata_do_not_count():
    text = """
ENTRY %main (x: f32[8]) -> f32[8] {
  %all-reduce.1 = f32[8] add(%x, %x), metadata={op_name="all-reduce(f32[8])"}
  ROOT %all-gather-start = f32[8] fusion(%all-reduce.1), kind=kLoop, calls=%all-reduce
}
"""
    assert collectives(text, devices=8) == ()


def test_groups_of_different_sizes_stay_apart():
    text = """
  %a = f32[8] all-reduce(%x), replica_groups={{0,1}}
  %b = f32[4] all-reduce(%x), replica_groups={{0,1}}
  %c = f32[2] all-reduce(%x), replica_groups={{0,1,2,3}}
"""
    assert collectives(text, devices=4) == (Collective("all-reduce", 2, 2, 48), Collective("all-reduce", 4, 1, 8))
