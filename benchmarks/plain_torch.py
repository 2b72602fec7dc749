"""digits-cnn in plain PyTorch, what `instep bench`'s torch-eager must match: ms of a step.

python benchmarks/plain_torch.py [contiguous_format]
"""

import sys
import time

import torch
from torch.nn.functional import cross_entropy

from instep.workloads.digits_cnn import torch_half


layout = getattr(torch, sys.argv[1] if len(sys.argv) > 1 else "channels_last")
model, batches, times = torch_half().model, list(torch_half().batches)[:32], []
model = model.to(memory_format=layout)
batches = [(images.to(memory_format=layout), labels) for images, labels in batches]
optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=5e-4, fused=True)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 420)
for n in range(400):
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    for images, labels in batches[4 * (n % 8) : 4 * (n % 8) + 4]:
        (cross_entropy(model(images), labels) / 4).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    times.append(time.perf_counter() - start)
print(f"{1e3 * sorted(times[100:])[150]:.3f} ms a step, the median of 300")
