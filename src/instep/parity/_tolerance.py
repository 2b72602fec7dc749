"""What "equal" means. The judge has no other numbers, and no workload has its own.

**Same semantics.** A leaf (one array of one step) of the JAX side agrees with PyTorch's in
float64 when

    max|jax - torch|  <=  max(RELATIVE * max|torch|, FLOOR_FACTOR * floor)

where the floor is measured, not chosen: DRAWS copies of the PyTorch loop run beside it, each
with its weights, its inputs and the result of every operator moved by one unit in the last
place at every step, and the floor is the largest change of that same leaf. In the free walk
the copies run as freely as the JAX side does, so the floor grows with the steps as rounding
does; in the re-synchronised one they start every step from where PyTorch stands, as JAX does.

An update is the difference of two parameters, so its floor is at least one ulp of these: three
copies of a scalar may all fall on the same side.

A leaf whose floor exceeds NOISE of its maximum is decided by rounding (the gradient of a bias
before BatchNorm is mathematically zero); it is listed as noise and not judged, unless its
error exceeds the floor 1 / NOISE times: no rounding explains that. The moved copies give such a
gradient random signs, so that the floors of what the optimizer makes of it (momentum, update,
parameter) are measured too.

A learning rate is judged against the largest one so far: where a cosine nears zero, PyTorch's
own 1 + cos(x) cancels, and what is left is as inexact as the largest rate. So is the loss: a
small cross entropy is the difference of two large logits.

**Same rounding.** In float32, bfloat16 and float16 every step starts from where PyTorch stands.
With e the RMS error of a leaf against the same step of PyTorch in float64 (the oracle),

    e(jax)  <=  ROUNDING_FACTOR * e(torch) + ROUNDING_ULPS * ulp(max|leaf|)

where e(torch) is the largest of PyTorch's own step and of the DRAWS copies of it whose
operators are moved by one unit in the last place: the error of one scalar, such as the loss, is
zero by luck in one step of many, and the copies are not all lucky. The ulp is that of
PyTorch's dtype, and no less than the smallest normal number, below which XLA has zero; a number
that PyTorch keeps on the host, such as the learning rate, counts as float32.

A scalar has no elements to take a mean over, and four draws of it may all be exact: one that
diverges is measured on up to LOOKS further copies before it is said to.

A ReLU whose input is within rounding of zero, or a maximum within rounding of a tie, may fall
on either side, and takes its gradient with it: a jump that few copies happen to make. So where
gradients are beyond their bound, up to LOOKS further copies are taken, whose operators are
moved by ROUNDING_FACTOR units, as far as JAX may be off. One whose gradient jumps as far as
JAX's, and more than JUMP bounds, as rounding without a jump does not, has its errors added to
the bounds of all that diverges at this step.

What is noise in float64 is noise here, and so is everything that the optimizer makes of a
gradient that is. A leaf whose bound exceeds its own RMS would pass if it were all zeros (the
update of a bfloat16 parameter can be less than half of its ulp); within the bound it is listed
as noise too, and beyond it has diverged like any other.

**Where nothing is left to judge.** A chaotic loop that runs freely doubles its rounding at
every step until that is all there is; in float32 a cross entropy that has come down to 1e-8 is
nothing else. If each step in float64 from where PyTorch stands is in step, as one equal step
after another is equal training, such a walk counts for the steps at which anything could be
judged, the first among them, and the verdict says so.

**LBFGS.** One step of it is up to ``max_iter`` steps, each from where the last one led, and it
goes on until the gradient is a difference of nearly equal numbers: rounding grows by orders of
magnitude inside a step. So its losses running freely are drawn, not judged. And where gradients
are in step and what it makes of them is beyond the bound, up to LOOKS further copies of the
step are taken, whose operators are moved by FLOOR_FACTOR units (below float64 by
ROUNDING_FACTOR), and their changes count for the floor as those of the first copies do.

**A step that a gradient scaler skips.** Its gradients are infinite or NaN, in float64 at the
same places on both sides. In lower precision rounding decides which numbers overflow, and only
whether any did is judged; where PyTorch's own step overflows and the one in float64 does not,
JAX is held against the former. The scale and its tracker are float32 and int32 in every walk.
"""

RELATIVE = 1e-12
FLOOR_FACTOR = 8.0
NOISE = 1e-6
DRAWS = 3

ROUNDING_FACTOR = 4.0
ROUNDING_ULPS = 2.0
LOOKS = 32
JUMP = 16.0
