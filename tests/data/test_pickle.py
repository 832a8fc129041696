import builtins
import copyreg
import io
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skelops.data._pickle import load

PLAIN = {
    "annotations": [
        {"frame_dir": "S001", "label": 3, "img_shape": (1080, 1920), "score": None, "ok": True},
        {"name": "ünïcode", "half": 0.5, "big": 2**80, "raw": b"\0\xff", "no": b"", "-": -7},
    ],
    "split": {"train": ["a", "b"], "val": set("xy"), "frozen": frozenset([1, 2])},
    "empty": [[], {}, (), set(), ""],
}
ARRAYS = [
    np.arange(24, dtype="f4").reshape(2, 3, 4),
    np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    np.arange(24, dtype="f2").reshape(2, 3, 4).transpose(2, 0, 1),
    np.array([True, False]),
    np.array(["one", "zwölf"]),
    np.array([b"a", b"bcd"]),
    np.zeros((0, 5)),
    np.array(7, "u8"),
    np.float32(1.5),
    np.int64(-3),
    np.bool_(True),
    np.str_("text"),
]


def read(data):
    return load(io.BytesIO(data))


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data(protocol):
    assert read(pickle.dumps(PLAIN, protocol)) == PLAIN


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", ARRAYS, ids=lambda v: f"{v.dtype}{v.shape}")
def test_arrays_and_scalars(protocol, value):
    text = pickle.dumps([value, value], protocol)
    again, trusted = read(text), pickle.loads(text)
    assert again[0].dtype == trusted[0].dtype and np.array_equal(again[0], value)
    assert type(again[0]) is type(value) and np.array_equal(again[1], value)
    if isinstance(value, np.ndarray):
        assert again[0] is again[1]
        assert again[0].flags.f_contiguous == value.flags.f_contiguous


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_modules_of_both_numpy_generations(protocol):
    data = pickle.dumps(ARRAYS[0], protocol)
    for module in (b"numpy.core", b"numpy._core"):
        other = data.replace(b"numpy._core", module).replace(b"numpy.core", module)
        if protocol == 4 and other != data:
            continue  # lengths are part of the pickle; protocols 0 and 2 name it by line
        assert np.array_equal(read(other), ARRAYS[0])


def test_python_2():
    """What Python 2 wrote: byte strings for text and for the data of an array."""
    data = np.array([1.5, -2.0], "<f4").tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I2\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nU"
        + bytes([len(data)]) + data + b"tb"
    )  # fmt: skip
    text = b"(lp0\nS'caf\\xe9'\na" + array + b"ac__builtin__\nset\n((lI4\natRaL5L\na."
    name, values, numbers, five = read(text)
    assert name == "café" and numbers == {4} and five == 5
    assert values.dtype == np.float32 and values.tolist() == [1.5, -2]


class Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class State:
    def __reduce__(self):
        return (dict, (), {"a": 1})


class WithItems:
    def __reduce__(self):
        return (copyreg._reconstructor, (object, object, None))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "attack, name",
    [
        (lambda f: Attack(os.system, f"touch {f}"), "posix.system"),
        (lambda f: Attack(eval, f"open({str(f)!r}, 'w')"), "eval"),
        (lambda f: Attack(exec, f"open({str(f)!r}, 'w')"), "exec"),
        (lambda f: Attack(open, str(f), "w"), "open"),
        (lambda f: Attack(builtins.getattr, dict, "fromkeys"), "getattr"),
        (lambda f: Attack(np.save, str(f), 1), "numpy.* save|numpy.save"),
        (lambda f: Attack(np.fromfile, str(f)), "fromfile"),
        (lambda f: Attack(np.memmap, str(f), "u1", "w+", 0, (1,)), "memmap"),
        (lambda f: [1, {"a": (Attack(os.mkdir, str(f)),)}], "posix.mkdir"),
        (lambda f: Attack(Attack, Attack(os.mkdir, str(f))), "Attack"),
        (lambda f: WithItems(), "copyreg._reconstructor|copy_reg._reconstructor"),
        (lambda f: State(), "dict"),
        (lambda f: pickle.PickleBuffer, "PickleBuffer"),
    ],
)
def test_attacks_are_refused_by_name(tmp_path, attack, name, protocol):
    target, path = tmp_path / "owned", tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(attack(target), protocol))
    with pytest.raises(ValueError, match=rf"a\.pkl: expected .*got the global .*({name}) before b"):
        load(path)
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        np.array([{}], object),
        np.zeros(2, [("a", "f4")]),
        np.array(["2020-01-01"], "M8[D]"),
        np.ma.array([1]),
        np.void(b"abc"),
        np.zeros(2, "c8"),
    ],
    ids=["object", "record", "date", "masked", "void", "complex"],
)
def test_other_dtypes_are_refused(value, protocol):
    with pytest.raises(ValueError, match=r"got the (dtype|global) "):
        read(pickle.dumps(value, protocol))


NDARRAY, DTYPE = b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
EMPTY = RECONSTRUCT + b"(" + NDARRAY + b"(I0\ntS'b'\ntR"
F4 = DTYPE + b"(S'f4'\ntR"


@pytest.mark.parametrize(
    "data, message",
    [
        (RECONSTRUCT + b"(" + NDARRAY + b"(I1000000000000\ntS'b'\ntR.", "an array made of"),
        (RECONSTRUCT + b"(" + DTYPE + b"(I0\ntS'b'\ntR.", "an array made of"),
        (RECONSTRUCT + b"(" + NDARRAY + b"(I0\ntS'O'\ntR.", "an array made of"),
        (NDARRAY + b"(I1000000000000\ntR.", "a call of object"),
        (NDARRAY + b"(I1000000000000\nt\x81.", "an instruction that plain data have no use for"),
        (b"(inumpy\nndarray\n.", "an instruction"),
        (b"(" + NDARRAY + b"I9\no.", "an instruction"),
        (b"\x82\1.", "an instruction"),
        (b"Pid\n.", "an instruction"),
        (b"\x97.", "an instruction"),
        (b"\xff.", "an instruction"),
        (EMPTY + b"(I1\n(I1000000000000\nt" + F4 + b"I00\nS''\ntb.", "0 bytes for an array flo"),
        (EMPTY + b"(I1\n(I-1\nt" + F4 + b"I00\nS''\ntb.", r"an array of shape \(-1,\)"),
        (EMPTY + b"(I1\n(I1\nt" + F4 + b"I00\n(lNatb.", "an array of list as float32"),
        (EMPTY + b"(I1\n(I1\ntS'f4'\nI00\nS'abcd'\ntb.", "an array of bytes as f4"),
        (EMPTY + b"I1\nb.", r"after \* must be an iterable"),
        (DTYPE + b"(S'O8'\ntR.", "the dtype 'O8'"),
        (DTYPE + b"(S'f4,f4'\ntR.", "the dtype 'f4,f4'"),
        (DTYPE + b"(S'U999999999'\ntR.", "the dtype 'U999999999'"),
        (F4 + b"(I3\nS'|'\n(S'f4'\n(I9\ntt(S'a'\nt(dI99\nI1\nI0\ntb.", "the dtype state"),
        (DTYPE + b"(dS'__module__'\nS'x'\nsb.", "a state for method"),
        (b"(dS'a'\nI1\nsS'x'\nb.", "a state for dict"),
        (b"cbuiltins\nbytes\n(I1000000000000\ntR.", "positional arg"),
        (b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.", "text in the encoding 'rot13'"),
        (b"cos\nsystem\n.", r"the global os\.system"),
        (b"cnumpy\nload\n.", r"the global numpy\.load"),
        (b"cnumpy.core.multiarray\nfromfile\n.", r"global numpy\.core\.multiarray\.fromfile"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0ddtype.__new__\x93.", r"global numpy\.dtype\.__new__"),
    ],
)  # fmt: skip
def test_gadgets(data, message):
    with pytest.raises(ValueError, match=r"^pickle: expected a pickle of .*, got .*" + message):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x8e" + struct.pack("<Q", 1 << 40),
        b"\x8d" + struct.pack("<Q", 1 << 40),
        b"\x96" + struct.pack("<Q", 1 << 40),
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40),
        b"B" + struct.pack("<I", (1 << 32) - 1),
        b"T" + struct.pack("<i", (1 << 31) - 1),
        b"\x8b" + struct.pack("<i", (1 << 31) - 1),
        b"Nr" + struct.pack("<I", (1 << 32) - 1) + b"00",
        b"B" + struct.pack("<I", 100_000) + bytes(100_000) + b"\x94"
         + (EMPTY + b"(I1\n(I100000\nt" + DTYPE + b"(S'u1'\ntRI00\nh\0tb0") * 4000,
        b"](" + b"N" * 1000 + b"e\x94" + b"cbuiltins\nset\n(h\0tR0" * 4000,
    ],
)  # fmt: skip
def test_memory_stays_proportional_to_the_file(data):
    data += b"."
    tracemalloc.start()
    with pytest.raises(ValueError, match="pickle: expected a pickle of plain data"):
        read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(data) + 1e6


def test_truncated_and_empty_files(tmp_path):
    path = tmp_path / "a.pkl"
    whole = pickle.dumps({"x": ARRAYS[:3], "plain": PLAIN})
    for stop in range(len(whole)):
        path.write_bytes(whole[:stop])
        with pytest.raises(ValueError, match=r"a\.pkl: expected a pickle of plain data, got "):
            load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "b.pkl")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_raises_a_value_error_or_nothing(data):
    whole = bytearray(pickle.dumps({"x": ARRAYS, "plain": PLAIN}, data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(whole))
    except ValueError as error:
        assert str(error).startswith("pickle: expected a pickle of plain data, got ")


def test_files_at_hand(recorded):
    for name in ("fixtures/pyskl_2d.pkl", "fixtures/pyskl_3d.pkl", "fixtures/stgcn_label.pkl",
                 "raw/ctrgcn_npz/raw_denoised_joints.pkl"):  # fmt: skip
        with open(recorded / name, "rb") as file:
            trusted = pickle.load(file)
        same(load(recorded / name), trusted)


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        same(list(a.values()), list(b.values()))
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    else:
        assert a == b
