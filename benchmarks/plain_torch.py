"""digits-cnn in plain PyTorch: what `instep bench` must match. Prints the ms of a step."""

import time

import torch

from instep.workloads.digits_cnn import WORKLOAD


loop = WORKLOAD.make_pair().torch
model, k, batches = loop.model, loop.accumulate, list(loop.batches)
optimizer = torch.optim.SGD(
    model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True
)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 420)
times = []
for n in range(200):
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    for i in range(k):
        images, labels = batches[(n * k + i) % len(batches)]
        (torch.nn.functional.cross_entropy(model(images), labels) / k).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    times.append(time.perf_counter() - start)
print(f"{1e3 * sorted(times[50:])[75]:.3f} ms a step, median of the last 150")
