"""Where a derivative is a choice: ties, zeros, clamps, infinities, NaN, weights of zero.

Every element is compared by itself, so that a large one does not cover for the others: to
1e-12 of itself, or of 1 if it is smaller.
"""

import numpy as np
import pytest
import torch

from conftest import assert_in_step
from losses import Call, both


INF, NAN = np.inf, np.nan
NUMBERS = [-INF, -800.0, -100.0, -1.0, 0.0, 0.5, 1.0, 2.0, 100.0, 800.0, INF, NAN]
X, Y = (a.ravel() for a in np.meshgrid(NUMBERS, NUMBERS))
PROBABILITIES = [0.0, 1e-300, 1e-12, 0.3, 0.5, 1.0]
P, Q = (a.ravel() for a in np.meshgrid(PROBABILITIES, [0.0, 0.3, 1.0]))
VECTORS = np.array([[0, 0], [1, 0], [1, 1], [-1, 2], [INF, 1], [NAN, 0]], float)
A, B = np.repeat(VECTORS, len(VECTORS), 0), np.tile(VECTORS, (len(VECTORS), 1))
N = np.roll(A, 3, 0)
ROWS = np.stack([X, Y], -1)
LABEL = np.arange(len(ROWS)) % 2
SIGN = 1.0 - 2 * LABEL
ONE_HOT = np.stack([LABEL == 0, LABEL == 1], -1).astype(float)
FILL = np.full_like(LABEL, -1)


def d(x):
    """A float64 tensor that is differentiated."""
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


def c(x):
    return torch.tensor(x)


# The order of the derivatives, and the call. Second derivatives at a zero vector are left out:
# PyTorch's are NaN or differences of numbers around 1e12.
CASES = [
    (2, "l1_loss", [d(X), d(Y)], {}),
    (2, "mse_loss", [d(X), d(Y)], {}),
    (2, "smooth_l1_loss", [d(X), d(Y)], {}),
    (2, "smooth_l1_loss", [d(X), d(Y)], {"beta": 0.5}),
    (2, "smooth_l1_loss", [d(X), d(Y)], {"beta": 0.0}),
    (2, "huber_loss", [d(X), d(Y)], {}),
    (2, "huber_loss", [d(X), d(Y)], {"delta": 2.0}),
    (2, "binary_cross_entropy", [d(P), d(Q)], {}),
    (2, "binary_cross_entropy_with_logits", [d(X), d(Y.clip(0, 1))], {}),
    (
        2,
        "binary_cross_entropy_with_logits",
        [d(X), d(Y.clip(0, 1))],
        {"pos_weight": c(np.array([2.0]))},
    ),
    (2, "kl_div", [d(X), d(Y)], {}),
    (2, "kl_div", [d(X), d(Y)], {"log_target": True}),
    (2, "poisson_nll_loss", [d(X), d(Y)], {}),
    (2, "poisson_nll_loss", [d(X), d(Y)], {"full": True}),
    (2, "poisson_nll_loss", [d(X), d(Y)], {"log_input": False, "full": True}),
    (2, "gaussian_nll_loss", [d(X), d(np.ones_like(X)), d(abs(Y))], {}),
    (2, "gaussian_nll_loss", [d(X), d(np.ones_like(X)), d(abs(Y))], {"eps": 0.5}),
    (2, "soft_margin_loss", [d(X), c(Y)], {}),
    (2, "hinge_embedding_loss", [d(X), c(SIGN)], {"margin": 2.0}),
    (2, "hinge_embedding_loss", [d(X), c(Y)], {}),
    (2, "margin_ranking_loss", [d(X), d(Y), c(SIGN)], {}),
    (2, "margin_ranking_loss", [d(X), d(Y), c(SIGN)], {"margin": 1.0}),
    (2, "cross_entropy", [d(ROWS), c(LABEL)], {}),
    (2, "cross_entropy", [d(ROWS), c(LABEL)], {"label_smoothing": 0.1}),
    (2, "cross_entropy", [d(ROWS), c(LABEL)], {"weight": c(np.array([0.0, 2.0]))}),
    (2, "cross_entropy", [d(ROWS), c(LABEL)], {"ignore_index": 1}),
    (2, "cross_entropy", [d(ROWS), d(ONE_HOT)], {}),
    (2, "nll_loss", [d(ROWS), c(LABEL)], {"weight": c(np.array([0.0, 2.0]))}),
    (2, "nll_loss", [d(ROWS), c(LABEL)], {"ignore_index": 0}),
    (1, "multi_margin_loss", [d(ROWS), c(LABEL)], {}),
    (1, "multi_margin_loss", [d(ROWS), c(LABEL)], {"p": 2}),
    (1, "multilabel_margin_loss", [d(ROWS), c(np.stack([LABEL, FILL], -1))], {}),
    (1, "multilabel_margin_loss", [d(ROWS), c(np.stack([LABEL, LABEL], -1))], {}),
    (1, "multilabel_margin_loss", [d(ROWS), c(np.stack([FILL, LABEL], -1))], {}),
    (2, "multilabel_soft_margin_loss", [d(ROWS), c(ONE_HOT)], {}),
    *(
        (1, "cosine_embedding_loss", [d(A), d(B), c(np.full(len(A), y))], {"margin": margin})
        for y, margin in ((1, 0.0), (-1, 0.0), (-1, 1.0), (0, 0.0))
    ),
    *(
        (1, "triplet_margin_loss", [d(A), d(B), d(N)], {"p": p, "swap": swap, "eps": eps})
        for p in (2.0, 1.0, 0.0, 0.5, 1.5, 3.0, INF, -INF, -1.0)
        for swap, eps in ((False, 1e-6), (True, 1e-6), (False, 0.0))
    ),
]


@pytest.mark.parametrize(
    ("order", "name", "args", "kwargs"),
    [pytest.param(*case, id=f"{case[1]}-{i}") for i, case in enumerate(CASES)],
)
def test_where_the_derivative_is_a_choice(order, name, args, kwargs, x64):
    call = Call(name, tuple(args), {**kwargs, "reduction": "none"})
    for i, (t, o) in enumerate(both(call, order)):
        for at in np.ndindex(t.shape):
            assert_in_step(t[at], o[at], f"[{i}] at {at}", at_least=1.0, finite=False)
