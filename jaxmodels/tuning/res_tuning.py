"""Res-Tuning: one residual tuner beside the attention, the feed-forward part and the block of every layer.

Jiang et al. 2023 (arXiv 2310.19859) unbind prefix, prompt and adapter tuning from the backbone and mix them freely:
single, dual or triple combinations. Which kind stands where in their best model cannot be recovered from the published
counts; those say that it is one of each. The default here is a prefix at the attention, an adapter at the feed-forward
part and a prompt at the block.
"""

from jaxmodels.tuning.places import check_choice
from jaxmodels.tuning.res_adapter import res_adapter
from jaxmodels.tuning.res_prefix import res_prefix
from jaxmodels.tuning.res_prompt import res_prompt
from jaxmodels.tuning.tuner import Tuner, chain

KINDS = ("prefix", "prompt", "adapter", "none")


def res_tuning(
    rank: int = 10,
    *,
    length: int = 10,
    mha: str | None = "prefix",
    ffn: str | None = "adapter",
    block: str | None = "prompt",
    lam: str | float = "exact",
    reads: str = "inputs",
    weight: str = "none",
    normalise: bool = False,
) -> Tuner:
    """Res-Tuning; 470,136 parameters on ViT-B/16 by default. For finer choices `chain` the three kinds yourself.

    Args:
        rank: h, hidden width of the adapters.
        length: n, of the prefixes and prompts.
        mha: kind beside the attention: 'prefix', 'prompt', 'adapter', or 'none' (None is the same).
        ffn: kind beside the feed-forward part.
        block: kind beside the whole block.
        lam: weight of a prefix or prompt at the attention: 'exact' (data-dependent), 'learned' or a number.
        reads: what adapters read, 'inputs' or 'output' of their operation.
        weight: of the adapters, see `res_adapter`.
        normalise: whether a prompt at the attention passes the block's LN1 first, see `res_prompt`.

    Returns:
        A chain of activation tuners.

    Raises:
        ValueError: an unknown kind, no kind at all, or an option of a part that is not there or does not fit.
    """
    kinds = {"mha": mha or "none", "ffn": ffn or "none", "block": block or "none"}
    for place, kind in kinds.items():
        check_choice(place, kind, KINDS)
    placed = {place: kind for place, kind in kinds.items() if kind != "none"}
    if not placed:
        raise ValueError("res_tuning: mha, ffn and block are all none, expected at least one kind")
    _check_used(placed, lam, reads, weight, normalise)

    def part(place: str, kind: str) -> Tuner:
        if kind == "adapter":
            return res_adapter(rank, place=place, reads=reads, weight=weight)
        mixture = lam if place == "mha" else None
        if kind == "prefix":
            return res_prefix(length, place=place, lam=mixture)
        return res_prompt(length, place=place, lam=mixture, normalise=normalise and place == "mha")

    config = {"method": "res_tuning", "rank": rank, "length": length, **kinds, "lam": lam}
    config |= {"reads": reads, "weight": weight, "normalise": normalise}
    return chain(*(part(place, kind) for place, kind in placed.items()))._replace(config=config)


def _check_used(placed: dict[str, str], lam: str | float, reads: str, weight: str, normalise: bool) -> None:
    """An option that nothing would read is a mistake of the caller, not a default to pass over."""
    if lam != "exact" and placed.get("mha") not in ("prefix", "prompt"):
        raise ValueError(f"lam: found {lam!r}, but there is no prefix or prompt at the attention to weigh")
    if (reads, weight) != ("inputs", "none") and "adapter" not in placed.values():
        raise ValueError(f"reads, weight: found {reads!r}, {weight!r}, but there is no adapter")
    if normalise and placed.get("mha") != "prompt":
        raise ValueError("normalise: found True, but there is no prompt at the attention")
