"""A checkpoint is whole or not there; what is damaged is told, and the one before is used."""

import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import instep
from checkpoints import PARAMS, TX, assert_same_state, at, data, flip, three
from instep import optim
from instep.checkpoint import Checkpointer, CheckpointError, CheckpointWarning, _checkpointer


# Damages. Each is done to the newest of three checkpoints.


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def instead_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def position_changed(folder: Path) -> None:
    seal = folder / "instep.json"
    text = seal.read_text()
    changed = text.replace('"taken": 3', '"taken": 4')
    assert changed != text
    seal.write_text(changed)


DAMAGES = {
    "a file is truncated": (
        lambda f: truncate(data(f)),
        r"state/ocdbt.* has \d+ bytes, and",
    ),
    "a file is emptied": (lambda f: data(f).write_bytes(b""), r"has 0 bytes, and \d+ were"),
    "a byte is flipped": (lambda f: flip(data(f)), r"state/ocdbt.*/d/.* is not as it was"),
    "the first byte is flipped": (lambda f: flip(data(f), 0), r"is not as it was written"),
    "a file is missing": (lambda f: data(f).unlink(), r"state/ocdbt.*/d/.* is missing"),
    "the manifest is missing": (
        lambda f: (f / "state/manifest.ocdbt").unlink(),
        r"state/manifest.ocdbt is missing",
    ),
    "the arrays are missing": (lambda f: shutil.rmtree(f / "state"), r"state/.* is missing"),
    "a file became a folder": (
        lambda f: ((f / "state/_METADATA").unlink(), (f / "state/_METADATA").mkdir()),
        r"state/_METADATA is missing",
    ),
    "the metadata is garbage": (
        lambda f: (f / "state/_METADATA").write_text("{garbage"),
        r"state/_METADATA has 8 bytes",
    ),
    "a digit of the metadata": (
        lambda f: flip(f / "state/_METADATA", 40),
        r"state/_METADATA is not as it was written",
    ),
    "the seal is garbage": (
        lambda f: (f / "instep.json").write_text("garbage"),
        r"instep.json cannot be read",
    ),
    "the seal is binary": (
        lambda f: (f / "instep.json").write_bytes(b"\xff\x00\x80"),
        r"instep.json cannot be read",
    ),
    "the seal is empty JSON": (
        lambda f: (f / "instep.json").write_text("[]"),
        r"instep.json cannot be read",
    ),
    "the seal is truncated": (
        lambda f: truncate(f / "instep.json"),
        r"instep.json cannot be read",
    ),
    "the position is another": (position_changed, r"instep.json is not as it was written"),
    "the seal is missing": (lambda f: (f / "instep.json").unlink(), r"it has no instep.json"),
    "an empty folder": (empty, r"it is empty, there is no instep.json"),
    "a file for a folder": (instead_a_file, r"it is a file, not a folder"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_told_and_the_one_before_is_used(damage, tmp_path):
    do, message = DAMAGES[damage]
    three(tmp_path)
    do(tmp_path / "3")
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        with pytest.warns(CheckpointWarning) as told:
            state, position = checkpointer.restore(at(0))
        assert_same_state(state, at(2))
        assert position == {"epoch": 0, "taken": 2}
        (warning,) = told
        text = str(warning.message)
        assert text.startswith(f"{tmp_path / '3'} is damaged: ") and re.search(message, text)
        assert "Step 2 is used" in text
        with pytest.raises(CheckpointError, match="3 is damaged"):
            checkpointer.restore(at(0), step=3)

        # The training goes on, past the damaged one, which is kept under another name.
        checkpointer.save(at(3), {"epoch": 0, "taken": 3})
        checkpointer.wait()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3", "3.damaged-1"]
        state, _ = checkpointer.restore(at(0))
        assert_same_state(state, at(3))


def test_several_damaged_ones(tmp_path):
    three(tmp_path)
    flip(data(tmp_path / "3"))
    empty(tmp_path / "2")
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.warns(CheckpointWarning) as told:
            state, _ = checkpointer.restore(at(0))
        assert [str(w.message)[len(str(tmp_path)) + 1] for w in told] == ["3", "2"]
        assert_same_state(state, at(1))
    flip(data(tmp_path / "1"))
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.raises(CheckpointError, match=r"no checkpoint of .* can be used:\n .*/3 is"),
    ):
        checkpointer.restore(at(0))


def test_what_nobody_reads_does_no_harm(tmp_path):
    three(tmp_path)
    for name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
        (tmp_path / "3" / name).write_text("garbage")
    (tmp_path / "notes").mkdir()
    (tmp_path / "007").mkdir()
    (tmp_path / "9.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "9.orbax-checkpoint-tmp" / "instep.json").write_text("half")
    (tmp_path / "0.instep-trash").mkdir()
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == [1, 2, 3]
        state, _ = checkpointer.restore(at(0))
        assert_same_state(state, at(3))
        checkpointer.save(at(4))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["007", "2", "3", "4", "notes"]


def test_nothing_half_written_has_the_name(tmp_path, monkeypatch):
    """While it is sealed, the last thing done to it, it has its temporary name."""
    seen = []

    def watched(folder, content):
        seen.append((folder.name, sorted(p.name for p in tmp_path.iterdir())))
        sealed(folder, content)

    sealed = _checkpointer.seal
    monkeypatch.setattr(_checkpointer, "seal", watched)
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(at(1))
        checkpointer.save(at(2))
    name = "{}.orbax-checkpoint-tmp".format
    assert seen == [(name(1), [name(1)]), (name(2), ["1", name(2)])]


def test_an_error_of_the_writing_is_raised(tmp_path, monkeypatch):
    def fails(folder, content):
        raise OSError("No space left on device")

    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(at(1))
    checkpointer.wait()
    monkeypatch.setattr(_checkpointer, "seal", fails)
    checkpointer.save(at(2))
    with pytest.raises(OSError, match="No space left"):
        checkpointer.close()
    with Checkpointer(tmp_path) as again:
        assert_same_state(again.restore(at(0))[0], at(1))


# Another model is no damage.


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            lambda: instep.init_state({**PARAMS, "w": np.zeros((4, 5))}, TX),
            r"params.w: float32\[4, 3\] there, float32\[4, 5\] here",
        ),
        (
            lambda: instep.init_state({"w": PARAMS["w"]}, TX),
            r"params.b: float32\[3\] there, nothing here",
        ),
        (
            lambda: instep.init_state({**PARAMS, "c": np.zeros(2)}, TX),
            r"params.c: nothing there, float32\[2\] here",
        ),
        (
            lambda: instep.init_state({**PARAMS, "b": np.zeros(3, np.float16)}, TX),
            r"params.b: float32\[3\] there, float16\[3\] here",
        ),
        (
            lambda: instep.init_state(PARAMS, optim.adam(0.1)),
            r"opt_state.slots.exp_avg.b: nothing there, float32\[3\] here",
        ),
        (
            lambda: instep.init_state(PARAMS, TX, rng=jax.random.key(0)),
            r"rng: nothing there, key<fry>\[\] here",
        ),
    ],
)
def test_another_training_is_an_error(like, message, tmp_path, recwarn):
    three(tmp_path)
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(CheckpointError, match=message) as raised:
            checkpointer.restore(like())
        assert str(raised.value).startswith(f"{tmp_path / '3'} is a checkpoint of another")
        assert_same_state(checkpointer.restore(at(0))[0], at(3))
    assert not recwarn.list


def test_keys_of_another_kind(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(instep.init_state(PARAMS, TX, rng=jax.random.key(0)))
        with pytest.raises(CheckpointError, match=r"key<fry>\[\] there, key<rbg>\[\] here"):
            checkpointer.restore(
                instep.init_state(PARAMS, TX, rng=jax.random.key(0, impl="rbg"))
            )
