"""What "equal" means. The judge has no other numbers, and no workload has its own.

A leaf (one array of one step) of the JAX side agrees with PyTorch's in float64 when

    max|jax - torch|  <=  max(RELATIVE * max|torch|, FLOOR_FACTOR * floor)

where the floor is measured, not chosen: DRAWS copies of the PyTorch loop run beside it, each
with its weights, its inputs and the result of every operator moved by one unit in the last
place at every step, and the floor is the largest change of that same leaf. The copies run as
freely as the JAX side does, so the floor grows with the steps as rounding does.

A leaf whose floor exceeds NOISE of its maximum is decided by rounding (the gradient of a bias
before BatchNorm is mathematically zero); it is listed as noise and not judged. The moved
copies give such a gradient random signs, so that the floors of what the optimizer makes of it
(momentum, update, parameter) are measured too.

A learning rate is judged against the largest one so far: where a cosine nears zero, PyTorch's
own 1 + cos(x) cancels, and what is left is as inexact as the largest rate. So is the loss: a
small cross entropy is the difference of two large logits.
"""

RELATIVE = 1e-12
FLOOR_FACTOR = 8.0
NOISE = 1e-6
DRAWS = 3

# In lower precision the question is rounding, judged against PyTorch's own: with e the RMS
# error of a leaf against the float64 oracle,
#
#     e_jax  <=  ROUNDING_FACTOR * e_torch + ROUNDING_ULPS * ulp(max|leaf|)

ROUNDING_FACTOR = 4.0
ROUNDING_ULPS = 2.0
