"""Optimizers, schedulers and scalers across the bridge: to the bit, by name, or an error."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch import nn
from torch.optim import lr_scheduler

import instep
from conftest import assert_in_step
from instep import bridge
from optimizers import batch, jax_gradients, jax_loss, optim_db, start, torch_loss
from test_handover import SCHEDULERS, assert_same_state, parameters, torch_leg


NAMES = [info.optim_cls.__name__ for info in optim_db]


def three_steps(name, **options):
    p = parameters(name)
    optimizer = getattr(torch.optim, name)(list(p.items()), lr=0.01, **options)
    torch_leg(p, optimizer, None, range(3))
    return optimizer


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_is_the_same_state(name, x64):
    """The state_dict that comes back is the one that went, to the bit."""
    optimizer = three_steps(name)
    tx, opt_state = bridge.optimizer_from_torch(optimizer)
    fresh = tx.init({n: jnp.asarray(v) for n, v in start(name).items()})
    for old, new in zip(jax.tree.leaves(fresh), jax.tree.leaves(opt_state), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    back = bridge.optimizer_state_dict(opt_state, optimizer)
    state = optimizer.state_dict()
    if name == "LBFGS":
        state["state"][0].pop("al")  # scratch: written before it is read
    assert_same_state(state, back)
    for number, slots in back["state"].items():
        for slot, value in slots.items():
            if torch.is_tensor(value):
                assert torch.equal(value, torch.as_tensor(state["state"][number][slot])), slot


@pytest.mark.parametrize("name", NAMES)
def test_before_the_first_step_there_is_no_state(name, x64):
    p = parameters(name)
    optimizer = getattr(torch.optim, name)(list(p.items()), lr=0.01)
    _, opt_state = bridge.optimizer_from_torch(optimizer)
    back = bridge.optimizer_state_dict(opt_state, optimizer)
    assert back["state"].keys() == optimizer.state_dict()["state"].keys()
    assert bool(back["state"]) == (name == "Adagrad")


def test_float32_leaves_the_rates_of_the_groups_alone():
    """0.01 is not a float32; what only its dtype has rounded has not changed."""
    p = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(p.parameters(), lr=0.01, betas=(0.8, 0.95))
    _, opt_state = bridge.optimizer_from_torch(optimizer, p)
    bridge.optimizer_to_torch(opt_state, optimizer, p)
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)
    opt_state = instep.optim.set_hyperparams(opt_state, lr=0.5)
    bridge.optimizer_to_torch(opt_state, optimizer, p)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_float32_goes_there_and_back_through_a_schedule_and_a_plateau():
    """What 8 ulp of float32 part from PyTorch's rate is PyTorch's rate."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 100)
    params = {n: jnp.asarray(p.detach().numpy()) for n, p in model.named_parameters()}
    for _ in range(99):
        tx, opt_state = bridge.optimizer_from_torch(optimizer, model, scheduler=scheduler)
        _, opt_state = tx.update(params, opt_state, params)
        bridge.optimizer_to_torch(opt_state, optimizer, model, scheduler=scheduler)
    assert optimizer.param_groups[0]["lr"] == scheduler.get_last_lr()[0]
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    plateau.step(0.3)
    rate = optimizer.param_groups[0]["lr"]
    bridge.plateau_to_torch(bridge.plateau_from_torch(plateau)[1], plateau)
    assert (optimizer.param_groups[0]["lr"], plateau.best) == (rate, 0.3)


def test_a_handover_in_the_middle_of_an_epoch_keeps_its_place(x64):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    theirs = []
    for n in range(1, 13):
        if n == 7:
            tx, opt_state = bridge.optimizer_from_torch(
                optimizer, scheduler=scheduler, scheduler_every=4, steps=6
            )
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if n % 4 == 0:
            scheduler.step()
    params, ours = {"0": jnp.zeros(1)}, []
    for _ in range(6):
        ours.append(float(instep.optim.hyperparams(opt_state)["lr"]))
        _, opt_state = tx.update(params, opt_state, params)
    assert ours == theirs[6:]


# No option at its default; another one in the second group.
OPTIONS = {
    "Adadelta": ({"rho": 0.5, "eps": 0.1, "weight_decay": 0.1, "maximize": True}, {"rho": 0.7}),
    "Adafactor": (
        {"beta2_decay": -0.5, "eps": (0.01, 0.1), "d": 1.5, "weight_decay": 0.1},
        {"beta2_decay": -0.9, "maximize": True},
    ),
    "Adagrad": (
        {"lr_decay": 0.5, "weight_decay": 0.1, "eps": 0.1},
        {"maximize": True, "eps": 0.01},
    ),
    "Adam": (
        {
            "betas": (0.5, 0.9),
            "eps": 0.1,
            "weight_decay": 0.1,
            "amsgrad": True,
            "maximize": True,
        },
        {"betas": (0.8, 0.99), "eps": 1e-3},
    ),
    "AdamW": (
        {"betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.2, "amsgrad": True},
        {"betas": (0.8, 0.99), "maximize": True},
    ),
    "Adamax": (
        {"betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.1, "maximize": True},
        {"betas": (0.8, 0.99)},
    ),
    "ASGD": (
        {"lambd": 0.1, "alpha": 0.5, "t0": 2, "weight_decay": 0.1, "maximize": True},
        {"lambd": 0.2},
    ),
    "NAdam": (
        {"betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.1, "momentum_decay": 0.1},
        {"decoupled_weight_decay": True, "weight_decay": 0.2, "maximize": True},
    ),
    "RAdam": (
        {"betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.1, "maximize": True},
        {"decoupled_weight_decay": True, "weight_decay": 0.2},
    ),
    "RMSprop": (
        {"alpha": 0.5, "eps": 0.1, "weight_decay": 0.1, "momentum": 0.5, "centered": True},
        {"alpha": 0.8, "maximize": True},
    ),
    "Rprop": ({"etas": (0.3, 1.5), "step_sizes": (1e-3, 0.1)}, {"maximize": True}),
    "SGD": (
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
        {"momentum": 0.5, "dampening": 0.3},
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_of_every_group_comes_along(name, x64):
    p = parameters(name)
    first, second = OPTIONS[name]
    named = list(p.items())
    groups = [{"params": named[:2], **first}, {"params": named[2:], "lr": 0.03, **second}]
    optimizer = getattr(torch.optim, name)(groups, lr=0.01)
    torch_leg(p, optimizer, None, range(3))
    tx, opt_state = bridge.optimizer_from_torch(optimizer)
    params = {n: jnp.asarray(v.detach().numpy()) for n, v in p.items()}
    update = jax.jit(tx.update)
    for step in range(3, 8):
        torch_leg(p, optimizer, None, [step])
        updates, opt_state = update(jax_gradients(params, *batch(step)), opt_state, params)
        params = jax.tree.map(jnp.add, params, updates)
    for n in p:
        assert_in_step(p[n], params[n], n)
    back = bridge.optimizer_state_dict(opt_state, optimizer)
    assert_same_state(optimizer.state_dict(), back)


def test_sparse_adam_and_muon_bring_their_options(x64):
    """As above, for those that take rows or matrices alone."""
    for make, options in (
        (torch.optim.Muon, {"weight_decay": 0.3, "momentum": 0.5, "nesterov": False}),
        (torch.optim.Muon, {"ns_steps": 3, "eps": 0.1, "adjust_lr_fn": "match_rms_adamw"}),
        (torch.optim.SparseAdam, {"betas": (0.5, 0.9), "eps": 0.1, "maximize": True}),
    ):
        optimizer = make([torch.ones(3, 2, requires_grad=True)], lr=0.1, **options)
        tx, opt_state = bridge.optimizer_from_torch(optimizer)
        ours = {torch.optim.Muon: instep.optim.muon}.get(make, instep.optim.sparse_adam)
        same = ours(lr=0.1, **options)
        w = {"0": jnp.arange(6.0).reshape(3, 2)}
        np.testing.assert_array_equal(
            tx.update(w, opt_state, w)[0]["0"], same.update(w, same.init(w), w)[0]["0"]
        )


@pytest.mark.parametrize("width", [2, 3])
def test_moments_cross_in_the_layout_of_their_weight(width, x64):
    """Also of a square layer, whose shape would hide a transposition."""
    model = nn.Linear(3, width)
    optimizer = torch.optim.Adam(model.parameters())
    (model(torch.randn(4, 3)) ** 2).sum().backward()
    optimizer.step()
    params = {"kernel": jnp.zeros((3, width)), "bias": jnp.zeros(width)}
    weights = bridge.match_weights([bridge.linear("")], model, params)
    there = {"weights": weights, "params": params}
    _, opt_state = bridge.optimizer_from_torch(optimizer, model, **there)
    moment = optimizer.state[model.weight]["exp_avg"].numpy()
    np.testing.assert_array_equal(opt_state.slots["exp_avg"]["kernel"], moment.T)
    back = bridge.optimizer_state_dict(opt_state, optimizer, model, **there)
    assert_same_state(optimizer.state_dict(), back)


def test_parameters_that_form_one_leaf_stand_at_one_step(x64):
    """PyTorch's two biases of an LSTM are one in Flax."""
    model = nn.LSTM(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3))[0].sum().backward()
    optimizer.step()
    flax = nnx.OptimizedLSTMCell(3, 2, rngs=nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(flax, nnx.Param))
    weights = bridge.match_weights([bridge.lstm("", "")], model, params)
    there = {"weights": weights, "params": params}
    joined = [x for x in weights.links if len(x.torch) > 1]
    assert joined, "no link joins two tensors"
    first, second = (dict(model.named_parameters())[n] for n in joined[0].torch[:2])
    optimizer.state[second]["step"] += 1
    with pytest.raises(ValueError, match="together, but their step differ"):
        bridge.optimizer_from_torch(optimizer, model, **there)
    del optimizer.state[second]
    with pytest.raises(ValueError, match="not all of them have"):
        bridge.optimizer_from_torch(optimizer, model, **there)
    assert first in optimizer.state


def test_counts_and_products_are_not_rounded_to_bfloat16():
    p = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    optimizer = torch.optim.NAdam([p])
    for _ in range(3):
        p.grad = torch.ones_like(p)
        optimizer.step()
    optimizer.state[p]["step"].fill_(301.0)  # which is no bfloat16
    _, opt_state = bridge.optimizer_from_torch(optimizer)
    back = bridge.optimizer_state_dict(opt_state, optimizer)["state"][0]
    for slot in ("step", "mu_product"):
        assert back[slot].dtype == torch.float32
        assert float(back[slot]) == float(optimizer.state[p][slot])


def test_a_cycled_momentum_is_tabulated_and_goes_back(x64):
    p = [torch.ones(2, requires_grad=True)]
    optimizer = torch.optim.AdamW(p, lr=0.1)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, 20)
    optimizer.step()
    scheduler.step()
    optimizer.param_groups[0]["lr"] *= 0.5
    (schedule,) = bridge.scheduler_from_torch(scheduler, 20)
    tx, opt_state = bridge.optimizer_from_torch(optimizer, scheduler=scheduler, total_steps=20)
    w = {"0": jnp.ones(2)}
    for _ in range(3):
        _, opt_state = tx.update(w, opt_state, w)
    for count in range(1, 5):
        now = np.array(optimizer.param_groups[0]["betas"][0])
        assert_in_step(now, np.asarray(schedule.momentum(count)))
        if count < 4:
            optimizer.step()
            scheduler.step()
    betas = bridge.optimizer_state_dict(opt_state, optimizer)["param_groups"][0]["betas"]
    assert_in_step(np.array(optimizer.param_groups[0]["betas"]), np.array(betas))


def test_schedules_per_epoch_go_there_and_back(x64):
    p = [torch.ones(2, requires_grad=True)]
    optimizer = torch.optim.SGD(p, lr=0.5)
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    there = {"scheduler": scheduler, "scheduler_every": 3}
    tx, opt_state = bridge.optimizer_from_torch(optimizer, **there)
    assert int(opt_state.hyperparams.count) == 6
    rates, w = [], {"0": jnp.ones(2)}
    for _ in range(4):
        rates.append(float(instep.optim.hyperparams(opt_state)["lr"]))
        _, opt_state = tx.update(w, opt_state, w)
    assert rates == [0.125, 0.125, 0.125, 0.0625]
    bridge.optimizer_to_torch(opt_state, optimizer, **there)
    assert scheduler.last_epoch == 3
    assert optimizer.param_groups[0]["lr"] == 0.0625


def test_a_first_gradient_of_zero_has_made_a_buffer(x64):
    """With dampening the second gradient is dampened, whatever the first one was."""
    p = [torch.ones(2, requires_grad=True)]
    optimizer = torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5)
    p[0].grad = torch.zeros(2)
    optimizer.step()
    _, opt_state = bridge.optimizer_from_torch(optimizer)
    back = bridge.optimizer_state_dict(opt_state, optimizer)
    assert_same_state(optimizer.state_dict(), back)


def test_a_factored_moment_that_looks_like_its_kernel_stays_one(x64):
    """A 1 x 1 kernel has rows and columns of its own shape."""
    p = [torch.randn(4, 8, 1, 1, requires_grad=True)]
    optimizer = torch.optim.Adafactor(p)
    p[0].grad = torch.randn(4, 8, 1, 1)
    optimizer.step()
    tx, opt_state = bridge.optimizer_from_torch(optimizer)
    assert jax.tree.map(jnp.shape, opt_state) == jax.tree.map(
        jnp.shape, tx.init({"0": jnp.zeros((4, 8, 1, 1))})
    )


@pytest.mark.parametrize("make", [torch.optim.Muon, torch.optim.Adafactor])
def test_rules_that_see_the_layout_refuse_another_one(make):
    model = nn.Linear(4, 8, bias=False)
    params = {"kernel": jnp.zeros((4, 8))}
    weights = bridge.match_weights([bridge.linear("")], model, params)
    with pytest.raises(ValueError, match="depends on the order of the axes"):
        bridge.optimizer_from_torch(
            make(model.parameters()), model, weights=weights, params=params
        )


def test_a_cycle_of_fractional_steps_is_tabulated(x64):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
    scheduler = lr_scheduler.CyclicLR(optimizer, 0.1, 1.0, 2.5)
    with pytest.raises(ValueError, match="give total_steps"):
        bridge.scheduler_from_torch(scheduler)
    (schedule,) = bridge.scheduler_from_torch(scheduler, 6)
    for count in range(6):
        rate = np.array(optimizer.param_groups[0]["lr"])
        assert_in_step(rate, np.asarray(schedule(count)), at_least=1.0)
        optimizer.step()
        scheduler.step()


def test_flags_without_a_meaning_and_a_tensor_lr(x64):
    p = parameters("Adam")
    lr = torch.tensor(0.01)
    optimizer = torch.optim.Adam(p.values(), lr=lr, foreach=False, amsgrad=True)
    torch_leg(p, optimizer, None, range(3))
    _, opt_state = bridge.optimizer_from_torch(optimizer)
    assert float(instep.optim.hyperparams(opt_state)["lr"]) == lr.item()
    betas = torch.tensor(0.5), torch.tensor(0.9)
    of_tensors = torch.optim.Adam([p["matrix"]], lr=lr, betas=betas, foreach=False)
    of_numbers = torch.optim.Adam([p["matrix"]], lr=lr.item(), betas=tuple(map(float, betas)))
    w = {"0": jnp.ones((12, 5))}
    updates = []
    for one in (of_tensors, of_numbers):
        tx, made = bridge.optimizer_from_torch(one)
        updates.append(tx.update(w, made, w)[0]["0"])
    np.testing.assert_array_equal(*updates)
    opt_state = instep.optim.set_hyperparams(opt_state, lr=0.5)
    bridge.optimizer_to_torch(opt_state, optimizer)
    assert optimizer.param_groups[0]["lr"] is not lr
    assert optimizer.param_groups[0]["lr"].item() == 0.5
    assert optimizer.param_groups[0]["foreach"] is False


@pytest.mark.parametrize("frozen", ["0.weight", "0", "1.bias"])
@pytest.mark.parametrize("several", [False, True], ids=["one group", "two groups"])
@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.Adagrad])
def test_frozen_parameters_inside_the_optimizer_stay(make, several, frozen, x64):
    """requires_grad_(False): PyTorch passes over them, and so does the transformation."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    for name, p in model.named_parameters():
        p.requires_grad_(not name.startswith(frozen))
    groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.3}]
    optimizer = make(groups if several else model.parameters(), lr=0.1)
    params = {n: jnp.asarray(p.detach().numpy()) for n, p in model.named_parameters()}
    tx, opt_state = bridge.optimizer_from_torch(optimizer, model)
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.ones_like(p) if p.requires_grad else None
        optimizer.step()
        updates, opt_state = tx.update(jax.tree.map(jnp.ones_like, params), opt_state, params)
        params = jax.tree.map(jnp.add, params, updates)
    for n, p in model.named_parameters():
        assert_in_step(p, params[n], n)
    back = bridge.optimizer_state_dict(opt_state, optimizer, model)
    assert_same_state(optimizer.state_dict(), back)


class Decay(lr_scheduler.LRScheduler):
    """Sets the weight decay as well."""

    def get_lr(self):
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.1 * self.last_epoch
        return [group["lr"] for group in self.optimizer.param_groups]


def test_a_bridged_state_of_lbfgs_may_be_donated(x64):
    optimizer = three_steps("LBFGS")
    tx, opt_state = bridge.optimizer_from_torch(optimizer)
    p = {n: jnp.asarray(v) for n, v in start("LBFGS").items()}
    step = instep.make_train_step(lambda p, xy: jax_loss(p, *xy), tx)
    state, _ = step(instep.init_state(p, tx, opt_state=opt_state), batch(0))
    assert int(state.opt_state.n_iter) > int(opt_state.n_iter)


def test_what_the_optimizer_does_not_train_is_left_alone():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.5)
    tx, opt_state = bridge.optimizer_from_torch(optimizer, model)
    params = {n: jnp.zeros(p.shape) for n, p in model.named_parameters()}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), opt_state, params)
    assert not any(updates[n].any() for n in ("0.weight", "0.bias"))
    assert all((updates[n] == -0.5).all() for n in ("1.weight", "1.bias"))


def test_a_scaler_with_a_skipped_step_in_the_middle(x64):
    """10 steps in PyTorch, 10 in JAX with an overflow at 15, 10 in PyTorch."""
    bad = 15

    def fresh():
        p = parameters("Adam")
        optimizer = torch.optim.Adam(p.values(), lr=0.01, weight_decay=0.1)
        scheduler = lr_scheduler.StepLR(optimizer, 4, 0.5)
        return p, optimizer, scheduler, torch.amp.GradScaler("cpu", growth_interval=7)

    def leg(p, optimizer, scheduler, scaler, steps):
        for step in steps:
            optimizer.zero_grad()
            loss = torch_loss(p, *batch(step)) * (torch.inf if step == bad else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()

    p, optimizer, scheduler, theirs = fresh()
    leg(p, optimizer, scheduler, theirs, range(30))

    q, *others = fresh()
    leg(q, *others, range(10))
    tx, opt_state = bridge.optimizer_from_torch(others[0], scheduler=others[1])
    numbers = {str(i): jnp.asarray(v.detach().numpy()) for i, v in enumerate(q.values())}
    scaler = bridge.scaler_from_torch(others[2])
    state = instep.init_state(numbers, tx, scaler=scaler, opt_state=opt_state)

    def loss_fn(params, batch):
        x, y, factor = batch
        return jax_loss(dict(zip(q, params.values(), strict=True)), x, y) * factor

    train_step = instep.make_train_step(loss_fn, tx)
    skipped = []
    for step in range(10, 20):
        factor = np.inf if step == bad else 1.0
        state, metrics = train_step(state, (*batch(step), np.float64(factor)))
        skipped += [step] if metrics.skipped else []
    assert skipped == [bad]
    with torch.no_grad():
        for tensor, array in zip(q.values(), state.params.values(), strict=True):
            tensor.copy_(bridge.array_to_tensor(array))
    bridge.optimizer_to_torch(state.opt_state, others[0], scheduler=others[1])
    bridge.scaler_to_torch(state.scaler, others[2])
    leg(q, *others, range(20, 30))

    for n in p:
        assert_in_step(p[n], q[n].detach().numpy(), n)
    assert_same_state(optimizer.state_dict(), others[0].state_dict())
    assert theirs.state_dict() == others[2].state_dict()
    assert scheduler.last_epoch == others[1].last_epoch == 30
    assert int(others[0].state[q["matrix"]]["step"]) == 29


CLASSES = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1.0 / (1.0 + epoch)),
    "step": lambda o: lr_scheduler.StepLR(o, 3),
    "multi step": lambda o: lr_scheduler.MultiStepLR(o, [2, 5, 5]),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.25, 6),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.1, 0.5, 9),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 30, 2.0),
    "cosine with a floor": lambda o: lr_scheduler.CosineAnnealingLR(o, 9, 0.01),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.2, 25, pct_start=0.4, three_phase=True),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, 5, mode="triangular2"),
    "swa": lambda o: torch.optim.swa_utils.SWALR(o, 0.02, 8),
    **{name: make for name, make in SCHEDULERS.items() if make},
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9),
}
TABLES = ("lambda", "chained", "multiplicative")  # a Python integer is promoted strictly here


def stepped(name, steps, lr=0.1):
    p = [torch.zeros(1, requires_grad=True), torch.zeros(2, requires_grad=True)]
    groups = [{"params": p[:1]}, {"params": p[1:], "lr": lr / 2}]
    optimizer = torch.optim.SGD(groups, lr, momentum=0.9)
    scheduler = CLASSES[name](optimizer)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", CLASSES)
def test_every_class_goes_on_from_where_it_stands(name, every, x64):
    optimizer, scheduler = stepped(name, 4)
    total = 20 if name in TABLES else None
    made = bridge.scheduler_from_torch(scheduler, total, scheduler_every=every)
    cycles = name in ("one cycle", "cyclic")
    assert [s.momentum is not None for s in made] == [cycles] * 2
    for count in range(4, 20):
        for group, schedule in zip(optimizer.param_groups, made, strict=True):
            for late in range(every):
                rate = schedule(count * every + late)
                assert_in_step(np.array(group["lr"]), np.asarray(rate), at_least=0.1)
            if cycles:
                momentum = schedule.momentum(count * every)
                assert_in_step(np.array(group["momentum"]), np.asarray(momentum))
        optimizer.step()
        scheduler.step()


class Halved(lr_scheduler.LRScheduler):
    """Somebody's own scheduler."""

    def get_lr(self):
        return [
            group["lr"] * (0.5 if self.last_epoch % 3 == 2 else 1.0) for group in self.groups
        ]

    @property
    def groups(self):
        return self.optimizer.param_groups


def test_a_rate_edited_by_hand_and_a_class_of_ones_own_are_tabulated(x64):
    optimizer, scheduler = stepped("exponential", 4)
    optimizer.param_groups[0]["lr"] = 0.7
    with pytest.raises(ValueError, match=r"no closed form.*total_steps.*has taken 4"):
        bridge.scheduler_from_torch(scheduler)
    first, _ = bridge.scheduler_from_torch(scheduler, 6)
    assert_in_step(np.array(0.7 * 0.9**2), np.asarray(first(6)))
    with pytest.raises(ValueError, match="count=7 is outside"):
        first(7)
    assert np.isnan(jax.jit(first)(7))
    own = Halved(torch.optim.SGD([torch.zeros(1)], 0.1))
    (schedule,) = bridge.scheduler_from_torch(own, 5)
    assert [float(schedule(i)) for i in range(6)] == [0.1, 0.1, 0.05, 0.05, 0.05, 0.025]
    assert own.last_epoch == 0


def test_a_lambda_that_can_be_traced_needs_no_table():
    _, scheduler = stepped("lambda", 4)
    first, second = bridge.scheduler_from_torch(scheduler)
    assert float(first(9)) == pytest.approx(0.01, rel=float(np.finfo(np.float32).eps))
    assert float(second(9)) == pytest.approx(0.005, rel=float(np.finfo(np.float32).eps))


@pytest.mark.parametrize("groups", [1, 2])
def test_plateau_both_ways(groups, x64):
    p = [torch.zeros(1, requires_grad=True) for _ in range(groups)]
    optimizer = torch.optim.SGD([{"params": [x], "lr": 0.1 * (i + 1)} for i, x in enumerate(p)])
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=2, threshold=0.1, cooldown=4, min_lr=0.001, eps=1e-3
    )
    metrics = [1.0, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.5]
    other_optimizer, other = copy.deepcopy((optimizer, scheduler))
    for metric in metrics:
        scheduler.step(metric)
    for metric in metrics[:4]:
        other.step(metric)
    plateau, state = bridge.plateau_from_torch(other)
    for metric in metrics[4:7]:
        state = plateau.update(state, metric)
    bridge.plateau_to_torch(state, other)
    assert other.cooldown_counter == 1  # handed back in the middle of it
    for metric in metrics[7:]:
        other.step(metric)
    rates = [[g["lr"] for g in o.param_groups] for o in (optimizer, other_optimizer)]
    assert_in_step(np.array(rates[0]), np.array(rates[1]))
    assert scheduler.best == other.best
    assert scheduler.num_bad_epochs == other.num_bad_epochs
    assert scheduler.cooldown_counter == other.cooldown_counter
    assert scheduler.last_epoch == other.last_epoch == len(metrics)


def test_a_plateau_of_other_groups_is_refused_before_anything_is_written():
    p = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    one = lr_scheduler.ReduceLROnPlateau(torch.optim.SGD(p[:1], lr=0.1))
    two = lr_scheduler.ReduceLROnPlateau(
        torch.optim.SGD([{"params": [x], "lr": 0.2} for x in p])
    )
    with pytest.raises(
        ValueError, match="1 learning rates and the optimizer 2 parameter groups"
    ):
        bridge.plateau_to_torch(bridge.plateau_from_torch(one)[1], two)
    assert [group["lr"] for group in two.optimizer.param_groups] == [0.2, 0.2]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_state_dicts_from_files(suffix, tmp_path):
    import safetensors.torch

    model = nn.Linear(3, 2)
    path = tmp_path / f"model{suffix}"
    save = torch.save if suffix == ".pt" else safetensors.torch.save_file
    save(model.state_dict(), path)
    loaded = bridge.load_state_dict(path)
    assert all(torch.equal(loaded[n], t) for n, t in model.state_dict().items())


def test_a_checkpoint_of_everything_is_read_without_running_it(tmp_path):
    optimizer, scheduler = stepped("multi step", 3)
    path = tmp_path / "checkpoint.pt"
    torch.save({"optimizer": optimizer.state_dict(), "lr": scheduler.state_dict()}, path)
    loaded = bridge.load_state_dict(path)
    fresh, fresh_scheduler = stepped("multi step", 0)
    fresh.load_state_dict(loaded["optimizer"])
    fresh_scheduler.load_state_dict(loaded["lr"])
    _, opt_state = bridge.optimizer_from_torch(fresh, scheduler=fresh_scheduler)
    assert int(opt_state.groups[0].hyperparams.count) == 3


class Harmful:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_with_code_is_refused(suffix, tmp_path, capsys):
    path = tmp_path / f"harmful{suffix}"
    torch.save({"x": Harmful()}, path)
    with pytest.raises(ValueError, match="harmful"):
        bridge.load_state_dict(path)
    assert capsys.readouterr().out == ""


def adafactor_in_another_layout():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adafactor(model.parameters())
    params = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}
    weights = bridge.match_weights([bridge.linear("")], model, params)
    bridge.optimizer_from_torch(optimizer, model, weights=weights, params=params)


def adam(*shape):
    return torch.optim.Adam([torch.zeros(shape or (2,), requires_grad=True)])


class Own(torch.optim.Adam):
    pass


ERRORS = {
    "a subclass": (
        lambda: bridge.optimizer_from_torch(Own([torch.zeros(1)])),
        TypeError,
        "Own is not a class of torch.optim",
    ),
    "another model": (
        lambda: bridge.optimizer_from_torch(adam(), nn.Linear(2, 2)),
        ValueError,
        r"group 0 has a tensor of shape \(2,\) that is not a parameter of the model",
    ),
    "weights without params": (
        lambda: bridge.optimizer_from_torch(adam(), weights=bridge.WeightMap()),
        ValueError,
        "weights and params belong together",
    ),
    "a layout that does not carry": (
        adafactor_in_another_layout,
        ValueError,
        r"Adafactor depends on the order of the axes, and weight has the layout",
    ),
    "another number of groups": (
        lambda: bridge.optimizer_state_dict(
            bridge.optimizer_from_torch(adam())[1], stepped("step", 0)[0]
        ),
        ValueError,
        "opt_state has 1 groups and the optimizer 2",
    ),
    "a state of optax": (
        lambda: bridge.optimizer_to_torch(optax.adam(0.1).init(jnp.ones(2)), adam()),
        TypeError,
        "opt_state is, or holds, a tuple.*by itself",
    ),
    "steps that are not the scheduler's": (
        lambda: bridge.optimizer_from_torch(
            (pair := stepped("step", 3))[0], scheduler=pair[1], scheduler_every=4, steps=6
        ),
        ValueError,
        "after steps=6.*stepped 1 times; this one has been 3 times",
    ),
    "a plateau": (
        lambda: bridge.scheduler_from_torch(lr_scheduler.ReduceLROnPlateau(adam())),
        TypeError,
        "bridge.plateau_from_torch",
    ),
    "a scheduler that is ahead": (
        lambda: bridge.scheduler_to_torch(2, stepped("step", 3)[1]),
        ValueError,
        "stepped 3 times already, more than the 2",
    ),
    "past the end": (
        lambda: bridge.scheduler_from_torch(stepped("chained", 3)[1], 2),
        ValueError,
        "total_steps=2, but this ChainedScheduler has taken 3",
    ),
    "a scheduler that sets more": (
        lambda: bridge.scheduler_from_torch(Decay(adam()), 5),
        ValueError,
        "this Decay sets 'weight_decay' too",
    ),
    "a scheduler of another optimizer": (
        lambda: bridge.optimizer_from_torch(adam(), scheduler=stepped("step", 0)[1]),
        ValueError,
        "the rates of another optimizer",
    ),
    "a state of another optimizer": (
        lambda: bridge.optimizer_to_torch(
            bridge.optimizer_from_torch(adam())[1],
            torch.optim.SGD([torch.zeros(2, requires_grad=True)]),
        ),
        ValueError,
        r"group 0 of opt_state is not that of the SGD: slots.exp_avg.0 has the shape \(2,\)",
    ),
    "other names": (
        lambda: bridge.optimizer_to_torch(
            instep.optim.adam().init({"kernel": jnp.zeros(2)}), adam()
        ),
        ValueError,
        "slots.exp_avg.0 has the shape None instead of",
    ),
    "another shape": (
        lambda: bridge.optimizer_to_torch(
            instep.optim.adam().init({"0": jnp.zeros((3, 2))}), adam(2, 3)
        ),
        ValueError,
        r"slots.exp_avg.0 has the shape \(3, 2\) instead of \(2, 3\)",
    ),
    "half a scaler": (
        lambda: bridge.scaler_to_torch(None, torch.amp.GradScaler("cpu")),
        ValueError,
        "the JAX side has no scaler, and PyTorch's is enabled",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_values_and_the_remedy(name):
    call, kind, message = ERRORS[name]
    with pytest.raises(kind, match=message):
        call()


def test_a_disabled_scaler_is_none():
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    assert bridge.scaler_from_torch(scaler) is None
    bridge.scaler_to_torch(None, scaler)
