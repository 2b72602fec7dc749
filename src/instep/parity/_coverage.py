"""What a walk did not compare: the leaves that only one side shows."""

from __future__ import annotations

from collections.abc import Sequence

from ._judge import Ledger
from ._leaf import SEEN_THROUGH, STAGE, Leaf, order
from ._records import Coverage


def make_coverage(
    ledger: Ledger,
    not_walked: Sequence[str],
    hidden: Sequence[str] = (),
    drawn: Sequence[str] = (),
) -> Coverage:
    """One sentence for each kind of leaf that one side does not show, and on ``hidden``."""
    sentences, complete = list(drawn), not not_walked and not hidden
    if hidden:
        more = f" and {len(hidden) - 1} more" if len(hidden) > 1 else ""
        sentences.append(
            f"state: view does not show {hidden[0]}{more} of the JAX side's state, which goes "
            f"on by itself when the rest is re-synchronised"
        )
    for here, there, leaves in (
        ("JAX", "PyTorch", ledger.only_torch),
        ("PyTorch", "JAX", ledger.only_jax),
    ):
        for kind in STAGE:
            found = sorted((leaf for leaf in leaves if leaf.kind == kind), key=order)
            if not found:
                continue
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            judged = ""
            if all(_said_alone(ledger, leaf) for leaf in found):
                judged = "; said to be PyTorch's alone"
            elif kind in SEEN_THROUGH and any(not ledger.idle(leaf) for leaf in found):
                judged = f"; judged through the {SEEN_THROUGH[kind]}"
            elif kind in SEEN_THROUGH:
                judged, complete = "; it had no effect here, so nothing is known of it", False
            else:
                complete = False
            sentences.append(
                f"{kind}: the {here} side does not show {found[0].name}{more}, which the "
                f"{there} side has{judged}"
            )
    return Coverage(complete, tuple(sentences), tuple(not_walked))


def not_seen_through(ledger: Ledger) -> list[Leaf]:
    """Leaves of one side that nothing else depends on: a verdict without them is no verdict."""
    return [
        leaf
        for leaf in ledger.only_torch | ledger.only_jax
        if leaf.kind not in SEEN_THROUGH and not _said_alone(ledger, leaf)
    ]


def _said_alone(ledger: Ledger, leaf: Leaf) -> bool:
    return leaf.kind == "buffer" and leaf.name in ledger.alone
