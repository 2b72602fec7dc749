"""A ``scan`` of a jaxpr, and the variables of its body by what the loop does with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from jax.extend.core import Jaxpr, JaxprEqn, Var
from jax.extend.core.primitives import scan_p

from ._compat import scan_counts
from ._sharded import is_sharded


class Body(NamedTuple):
    """The program of one pass of a ``scan``; ``carry``, ``xs`` and ``ys`` as JAX calls them."""

    jaxpr: Jaxpr
    consts: int  # how many
    carries: int

    @staticmethod
    def of(eqn: JaxprEqn) -> Body:
        return Body(eqn.params["jaxpr"].jaxpr, *scan_counts(eqn.params))

    @property
    def carry_in(self) -> Sequence[Var]:
        return self.jaxpr.invars[self.consts :][: self.carries]

    @property
    def xs(self) -> Sequence[Var]:
        return self.jaxpr.invars[self.consts + self.carries :]

    @property
    def carry_out(self) -> Sequence[Any]:
        return self.jaxpr.outvars[: self.carries]

    @property
    def ys(self) -> Sequence[Any]:
        return self.jaxpr.outvars[self.carries :]

    def arrays(self, eqn: JaxprEqn) -> tuple[Sequence[Var], Sequence[Var]]:
        """``xs`` and ``ys`` of all passes, the variables of the ``scan``."""
        xs = eqn.invars[self.consts + self.carries :]  # stacked, so none is a Literal
        return cast(list[Var], xs), eqn.outvars[self.carries :]


def may_change(eqn: JaxprEqn) -> bool:
    """Whether it is a ``scan`` of known length, and not sharded."""
    known = eqn.primitive is scan_p and isinstance(eqn.params["length"], int)
    return known and not is_sharded(eqn)
