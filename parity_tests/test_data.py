"""Streams of batches: their order, their positions, threads, padding and windows."""

import json
import random
import threading
import time
from itertools import islice

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
    WeightedRandomSampler,
)

import instep
from conftest import assert_bitwise, assert_in_step
from instep import data, losses


class Drawing(Dataset):
    """Examples with augmentation from all three global generators, and what was loaded."""

    def __init__(self, n=10):
        self.n, self.loaded = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.loaded.append(i)
        noise = [torch.rand(()).item(), np.random.rand(), random.random()]
        return torch.tensor([float(i), *noise]), i


class Reading(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(10.0))


def from_map(**options):
    source = [{"x": np.full(2, float(i)), "y": i} for i in range(10)]
    return data.from_grain(grain.MapDataset.source(source), 3, seed=5, **options)


def grain_loader():
    sampler = grain.samplers.IndexSampler(10, shuffle=True, seed=1, num_epochs=None)
    return grain.DataLoader(
        data_source=list(range(10)),
        sampler=sampler,
        operations=[grain.transforms.Batch(3, drop_remainder=True)],
        worker_count=0,
    )


def iter_dataset():
    return grain.MapDataset.range(10).shuffle(seed=2).repeat().to_iter_dataset()


PLAIN = [np.arange(3) + 10 * i for i in range(5)]

STREAMS = {
    "list": lambda: data.stream(PLAIN),
    "mapped": lambda: data.mapped(lambda x: x + 1, PLAIN),
    "windows": lambda: data.windows(PLAIN, 2),
    "windows, short last": lambda: data.windows(PLAIN, 2, drop_last=False),
    "prefetched": lambda: data.prefetch(PLAIN, 3),
    "prefetched windows": lambda: data.prefetch(data.windows(PLAIN, 2), 1),
    "mapped prefetched": lambda: data.mapped(lambda x: x + 1, data.prefetch(PLAIN)),
    "loader": lambda: data.from_loader(DataLoader(Drawing(), 3, shuffle=True), seed=4),
    "loader, recognised": lambda: data.stream(DataLoader(Drawing(), 3, shuffle=True)),
    "loader, windows": lambda: data.windows(
        DataLoader(Drawing(), 3, shuffle=True, drop_last=True), 2
    ),
    "loader, prefetched": lambda: data.prefetch(DataLoader(Drawing(), 3, shuffle=True)),
    "loader, no batches": lambda: data.from_loader(DataLoader(Drawing(), batch_size=None)),
    "loader, weighted": lambda: data.from_loader(
        DataLoader(Drawing(), 3, sampler=WeightedRandomSampler(torch.arange(10.0), 8))
    ),
    "loader, distributed": lambda: data.from_loader(
        DataLoader(Drawing(), 2, sampler=DistributedSampler(Drawing(), 2, 1))
    ),
    "loader, own generator": lambda: data.from_loader(
        DataLoader(Drawing(), 3, shuffle=True, generator=torch.Generator())
    ),
    "loader, iterable": lambda: data.from_loader(DataLoader(Reading(), 3)),
    "grain map": from_map,
    "grain map, windows": lambda: from_map(accumulate=2),
    "grain map, a shard": lambda: from_map(shard=(1, 3)),
    "grain map, recognised": lambda: data.stream(grain.MapDataset.range(10).batch(3)),
    "grain iter": lambda: data.from_grain(iter_dataset(), 3),
    "grain iter, windows": lambda: data.windows(data.from_grain(iter_dataset(), 3), 2),
    "grain loader": lambda: data.from_grain(grain_loader()),
}


def take(iterator, n):
    return [jax.tree.map(np.asarray, batch) for batch in islice(iterator, n)]


@pytest.mark.parametrize("name", STREAMS)
def test_an_iterator_goes_on_from_every_position(name):
    """The batches after a position, through JSON, are those of one that never stopped."""
    make = STREAMS[name]
    whole = iter(make())
    batches, states = [], [whole.state()]
    for _ in range(9):
        batches += take(whole, 1)
        states.append(json.loads(json.dumps(whole.state())))
    data._stream.close_all(whole)
    assert any(a is not b and not same(a, b) for a in batches for b in batches)
    for n in (0, 1, 4, 5, 7):
        iterator = iter(make())
        iterator.restore(states[n])
        assert iterator.state() == states[n]
        assert_bitwise(take(iterator, 9 - n), batches[n:], f"{name} from {n}")
        iterator.restore(states[1])  # and back, the same iterator
        assert_bitwise(take(iterator, 2), batches[1:3], name)
        data._stream.close_all(iterator)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def firsts(batches):
    return [int(x) for batch in batches for x in np.ravel(batch)]


def test_epochs_of_a_list():
    it = iter(data.stream([1, 2, 3]))
    assert list(islice(it, 7)) == [1, 2, 3, 1, 2, 3, 1]
    assert it.state() == {"epoch": 2, "taken": 1}


def test_windows_stay_in_their_epoch():
    windows = iter(data.windows(PLAIN, 2))
    assert [w[:, 0].tolist() for w in islice(windows, 3)] == [[0, 10], [20, 30], [0, 10]]
    windows = iter(data.windows(PLAIN, 2, drop_last=False))
    assert [len(w) for w in islice(windows, 4)] == [2, 2, 1, 2]


def test_the_end_of_an_endless_thing():
    with pytest.raises(ValueError, match=r"epoch 1 has no batches.*a generator is used up"):
        list(data.stream(iter([1, 2])))
    with pytest.raises(ValueError, match=r"epoch 0 has no batches"):
        next(iter(data.stream([])))
    finite = grain.MapDataset.range(7).to_iter_dataset()
    assert len(list(data.from_grain(finite, 3))) == 2
    assert len(list(data.windows(data.from_grain(finite, 3), 2))) == 1


def test_a_position_of_something_else():
    position = iter(from_map()).state()
    with pytest.raises(ValueError, match=r"\{'next_index': 0\} is of another kind"):
        iter(data.stream(PLAIN)).restore(position)


# PyTorch.


def indices(stream, n):
    return [batch[1].tolist() for batch in islice(iter(stream), n)]


def test_the_order_is_a_function_of_seed_and_epoch():
    def loader():
        return DataLoader(Drawing(), 5, shuffle=True)

    a, b = (indices(data.from_loader(loader(), seed=3), 6) for _ in range(2))
    assert a == b != indices(data.from_loader(loader(), seed=4), 6)
    for epoch in (a[:2], a[2:4], a[4:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(10))
    assert a[:2] != a[2:4] != a[4:]


def test_the_loader_and_the_generators_are_left_as_they_are():
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(Drawing(), 5, shuffle=True, generator=generator)
    states = generator.get_state(), torch.get_rng_state()
    others = random.getstate(), np.random.get_state()[1].copy()
    take(iter(data.from_loader(loader)), 3)
    assert torch.equal(generator.get_state(), states[0])
    assert torch.equal(torch.get_rng_state(), states[1])
    assert random.getstate() == others[0]
    np.testing.assert_array_equal(np.random.get_state()[1], others[1])


def test_what_is_skipped_is_not_loaded():
    loader = DataLoader(Drawing(100), 5, shuffle=True)
    it = iter(data.from_loader(loader))
    it.restore({"epoch": 3, "taken": 18})
    rest = take(it, 2)
    assert len(loader.dataset.loaded) == 10
    assert loader.dataset.loaded == [i for batch in rest for i in batch[1]]


def test_workers_give_the_same_batches():
    """Spawned, augmentation included; in mid-epoch too."""
    ours = take(iter(data.from_loader(DataLoader(Drawing(), 3, shuffle=True), seed=4)), 6)
    loader = DataLoader(Drawing(), 3, shuffle=True, num_workers=2)
    it = iter(data.from_loader(loader, seed=4))
    assert_bitwise(take(it, 6), ours)
    it.restore({"epoch": 0, "taken": 3})
    assert_bitwise(take(it, 3), ours[3:])
    it.close()


def test_no_two_batches_draw_the_same():
    it = iter(data.from_loader(DataLoader(Drawing(), 5)))
    drawn = np.stack([batch[0][:, 1:] for batch in islice(it, 6)])
    assert len(np.unique(drawn)) == drawn.size == 90


def test_distributed_samplers_share_an_epoch():
    dataset = TensorDataset(torch.arange(10), torch.arange(10))
    streams = [
        data.from_loader(DataLoader(dataset, 5, sampler=DistributedSampler(dataset, 2, rank)))
        for rank in (0, 1)
    ]
    first, second = (indices(s, 2) for s in streams)
    for a, b in zip(first, second, strict=True):
        assert sorted(a + b) == list(range(10))
    assert first[0] != first[1]


# grain.


def test_grain_shuffles_by_seed_and_epoch():
    def order(seed):
        dataset = grain.MapDataset.range(8)
        return firsts(islice(iter(data.from_grain(dataset, 4, seed=seed)), 4))

    a = order(1)
    assert a == order(1) != order(2)
    assert sorted(a[:8]) == sorted(a[8:]) == list(range(8)) and a[:8] != a[8:]


def test_grain_shards_are_equal_and_apart():
    shards = [
        firsts(islice(iter(data.from_grain(grain.MapDataset.range(11), 1, seed=3, shard=s)), 5))
        for s in ((0, 2), (1, 2))
    ]
    assert len({*shards[0], *shards[1]}) == 10


def test_grain_windows_are_stacked():
    (window,) = take(iter(from_map(accumulate=2)), 1)
    (a, b) = take(iter(from_map()), 2)
    assert_bitwise(window, instep.stack([a, b]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.from_grain([1, 2]), TypeError, r"takes a grain MapDataset.*got a list"),
        (lambda: from_map(shard=(3, 3)), ValueError, r"0 <= index < count; got \(3, 3\)"),
        (lambda: from_map(accumulate=4), ValueError, r"10 examples in 1 shards make no window"),
        (lambda: data.from_grain(iter_dataset(), 2, seed=1), ValueError, r"got seed=1, shard="),
        (lambda: data.from_grain(grain_loader(), 2), ValueError, r"DataLoader batches by it"),
        (lambda: data.windows(PLAIN, 0), ValueError, r"k must be at least 1; got k=0"),
        (lambda: data.prefetch(PLAIN, 0), ValueError, r"size must be at least 1; got size=0"),
    ],
)
def test_requests_that_are_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Ahead of use.


def threads():
    return [t for t in threading.enumerate() if t.name == "instep-prefetch"]


def until(condition):
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_batches_are_ahead_and_the_position_is_not():
    made = []
    it = iter(data.prefetch(data.mapped(lambda x: made.append(1) or x, PLAIN), size=2))
    assert not threads() and it.state() == {"epoch": 0, "taken": 0}
    batch = next(it)
    assert isinstance(batch, jax.Array)
    assert until(lambda: len(made) == 4)  # 1 taken, 2 ready, 1 in hand
    time.sleep(0.05)
    assert len(made) == 4 and it.state() == {"epoch": 0, "taken": 1}
    it.close()
    assert not threads()
    assert it.state() == {"epoch": 0, "taken": 1}
    assert np.array_equal(next(it), PLAIN[1])  # what was ahead is not lost
    it.close()


def test_an_error_of_the_thread_comes_in_its_place():
    def fails(x):
        if x[0] == 20:
            raise KeyError("no such image")
        return x

    it = iter(data.prefetch(data.mapped(fails, PLAIN)))
    assert [x[0] for x in take(it, 2)] == [0, 10]
    for _ in range(2):
        with pytest.raises(KeyError, match="no such image"):
            next(it)
    assert it.state() == {"epoch": 0, "taken": 2}
    it.close()
    assert not threads()


def test_the_end_comes_through():
    finite = data.from_grain(grain.MapDataset.range(7).to_iter_dataset(), 3)
    it = iter(data.prefetch(finite))
    assert len(list(it)) == 2
    assert list(it) == []
    it.close()


def test_a_forgotten_iterator_ends_its_thread():
    it = iter(data.prefetch(PLAIN))
    next(it)
    assert threads()
    del it
    assert until(lambda: not threads())


def test_the_thread_has_the_precision_of_the_consumer():
    with jax.enable_x64(True):
        it = iter(data.prefetch([np.ones(2)]))
        assert next(it).dtype == jnp.float64
        it.close()
    it = iter(data.prefetch([np.ones(2)]))
    assert next(it).dtype == jnp.float32
    it.close()


def test_batches_are_placed():
    mesh = jax.make_mesh((1,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    it = iter(data.prefetch([{"x": np.ones(4), "y": np.ones((4, 2))}], sharding=sharding))
    assert all(x.sharding == sharding for x in jax.tree.leaves(next(it)))
    it.close()


# Padding.


def loss_fn(params, batch):
    (x, y), mask = batch
    return losses.total_and_weight(losses.cross_entropy)(x @ params["w"], y, where=mask)


@pytest.mark.parametrize("sizes", [(4, 4, 2), (4, 1), (3,)])
def test_padded_batches_give_the_loss_and_gradient_of_the_examples(sizes, x64):
    """PyTorch's mean over all examples, by microbatches padded to one size."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(sum(sizes), 5)), rng.integers(0, 3, sum(sizes))
    w = rng.normal(size=(5, 3))
    weight = torch.tensor(w, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(torch.tensor(x) @ weight, torch.tensor(y))
    loss.backward()

    cuts = np.cumsum(sizes)[:-1]
    parts = zip(np.split(x, cuts), np.split(y, cuts), strict=True)
    params, acc = {"w": jnp.asarray(w)}, None
    acc = instep.zero_grad(params)
    for part in parts:
        batch, mask = data.pad(part, 4)
        assert batch[0].shape == (4, 5) and mask.sum() == len(part[0])
        acc, _ = instep.backward(loss_fn, acc, params, None, (batch, mask))
    acc = instep.mean(acc)
    assert_in_step(loss, acc.loss)
    assert_in_step(weight.grad, acc.grads["w"])


def test_padding_repeats_the_last_example_and_keeps_dtypes():
    batch, mask = data.pad({"x": np.arange(6, dtype=np.int8).reshape(3, 2)}, 5)
    np.testing.assert_array_equal(batch["x"][3:], [[4, 5], [4, 5]])
    assert batch["x"].dtype == np.int8 and mask.tolist() == [True] * 3 + [False] * 2


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((np.ones(3), np.ones(2)), r"1 to 2; found \{'0': 3, '1': 2\}"),
        (np.ones(3), r"1 to 2; found"),
        (np.ones((0, 2)), r"1 to 2; found"),
        (np.float32(1), r"are scalars"),
    ],
)
def test_what_cannot_be_padded(batch, message):
    with pytest.raises(ValueError, match=message):
        data.pad(batch, 2)
