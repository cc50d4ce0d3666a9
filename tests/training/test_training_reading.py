"""Data as people have it: what is found is told, what is wrong is named by file, line, column and value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.network.data import Problem
from kappa_rtl.golden.network.reading import load
from kappa_rtl.golden.network.scaling import fit, prepare

KINDS = "x,y,kind\n1,2,1\n3,4,2\n5,6,3\n"
MANY = "".join(f"1,{i}\n" for i in range(1001))


def csv(folder: Path, content: str | bytes) -> Path:
    path = folder / "mine.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "how", "inputs", "note"),
    [
        ("a,b\n1,2\n3,4\n", {}, [1, 3], "text stands over columns of numbers: 'a', 'b'"),
        ("1,2\n3,4\n", {}, [1, 3], "The first row, '1', '2', is taken for a sample"),
        ("a;b\n1,5;2\n-2,25;4\n", {}, [1.5, -2.25], "The decimal mark is taken to be a comma."),
        ("a\tb\n1,5\t2\n,5\t4\n", {}, [1.5, 0.5], "separated by 'tab'"),
        ('"1,5","2,5"\n"3","4"\n', {}, [1.5, 3], "The decimal mark is taken to be a comma."),
        ("1 2\n3   4\n", {"separator": " "}, [1, 3], "no header"),
        ("0,1\n.5,3\n.25,4\n", {}, [0.5, 0.25], "the header of a table without names"),
        ("0,1\n5,3\n2,4\n", {"header": True}, [5, 2], "The first row is the header, as header says."),
        ("0,1\n5,3\n", {"header": False}, [0, 5], "The first row is a sample, as header says."),
        (",0,1\n0,5,6\n1,7,8\n", {}, [5, 7], "it is an index, and left out"),
        (",a,b\n0,5,6\n1,7,8\n", {}, [5, 7], "it is an index, and left out"),
        ("# a, b\n1,2\n", {}, [1], "header"),
        ("a,b\r\n1,2\r\n\r\n3,4\r\n", {}, [1, 3], "Blank lines are skipped, such as line 3."),
        ("\ufeffa,b\n1,2\n".encode(), {}, [1], "header"),
        ("a,b\n1,2\n".encode("utf-16"), {}, [1], "read as UTF-16"),
        ("größe,b\n1,2\n".encode("latin-1"), {}, [1], "line 1 has the byte 0xf6"),
        ("größe,b\n1,2\n".encode("cp1252"), {"encoding": "cp1252", "inputs": "größe"}, [1], "read as CP1252"),
        (f"a,{'x' * 200_000}\n1,2\n", {}, [1], "header"),
        ("a,b\nTrue,2\nFalse,4\n", {}, [1, 0], "Inputs are 'a'."),
    ],
)
def test_what_is_found_is_told(content: str | bytes, how: dict[str, Any], inputs: list[float], note: str, tmp_path: Path) -> None:
    problem = load(csv(tmp_path, content), **how)
    assert problem.inputs[:, 0].tolist() == inputs and any(note in said for said in problem.notes), problem.notes


@pytest.mark.parametrize(
    ("content", "how", "message"),
    [
        ("", {}, "mine.csv: must hold rows, and is empty"),
        ("\n \n", {}, "must hold rows, and is empty"),
        ("a,b\n", {}, "rows must follow the header"),
        ("1,2\n3\n", {}, "line 2: rows must all have the same number of columns, 2, not 1 column"),
        ("a,b\n1,2,3\n4,5,6\n", {}, "line 1: rows must all have the same number of columns, 3, not 2 columns"),
        ("1\n2\n", {}, "rows must have at least two columns"),
        ("a,b,a\n1,2,3\n", {}, "'a' is that of columns 0 and 2"),
        ("1,2\n3,x\n", {}, "line 2, column 1: must be a number with the decimal mark '.', not 'x'"),
        ("a,b\n1,2\n", {"separator": ";"}, "at least two columns"),
        ("a;b\n1.234,5;6\n", {}, "line 2, column 'a': must be a number .*, not '1.234,5'"),
        ("a;b\n1.5;6\n1,5;6\n", {}, "one decimal mark, not a comma in line 3 .* and a point in line 2"),
        ("NA,2\n3,4\n5,6\n", {}, "line 1, column 0: no value may be missing, and here is 'NA'"),
        (",2\n3,4\n", {}, "line 1, column 0: no value may be missing"),
        ("a,b\n1,2\n\n3,nan\n", {}, "line 4, column 'b': no value may be missing, and here is 'nan'"),
        ('"a\nb",c\n1,2\n3,\n', {}, "line 4, column 'c': no value may be missing"),
        ("a,b\n1,inf\n", {}, "line 2, column 'b': must be finite, not 'inf'"),
        ("a,b\n1,1e999\n", {}, "must be finite in float64, not '1e999'"),
        ("a,b\n1_000,2\n", {}, "not '1_000'"),
        (f"a,b\n{'x' * 200_000},1\n", {}, r"not 'x+'... \(200,000 characters\)"),
        ("0,1\n5,3\n2,4\n", {}, "line 1: the first row must be a header or a sample, .*; say header = true or header = false"),
        ("a,,c\n1,2,3\n", {}, "column 0 has 'a' over numbers, and column 1 has ''"),
        ("id,2020\n1,2\n", {}, "and column 1 has '2020'"),
        ('a,b\n1,"2\n', {}, "a quotation mark .* must be closed"),
        ("a,b\n1,2\n".encode("utf-16-le"), {}, "line 1: must be text, and holds a zero byte"),
        ("größe,b\n1,2\n".encode("latin-1"), {"encoding": "utf-8"}, "must be text in utf-8"),
        ("a,b\n1,2\n", {"encoding": "klingon"}, "encoding must be one that Python knows"),
        ("a,b\n1,2\n", {"separator": ",,"}, "separator must be one character"),
        ("a,b\n1,2\n", {"decimal": ";"}, "decimal must be '.' or ','"),
        ("a,b\n1,2\n", {"header": 0}, "header must be true or false, not 0"),
        ("a,b\n1,2\n", {"outputs": 2}, "outputs must be less than the 2 columns, not 2"),
        ("a,b\n1,2\n", {"inputs": ["a", "b"]}, "inputs must leave a column for targets or label, not name all 2"),
        ("a,b\n1,2\n", {"targets": ["a", "b"]}, "targets must leave a column for inputs, not name all 2"),
        ("a,b\n1,2\n", {"inputs": []}, r"inputs must name at least one column, not \[\]"),
        (KINDS, {"label": "kid"}, "label must name columns among 'x', 'y', 'kind', not 'kid'"),
        (KINDS, {"label": 3}, "numbers from -3 to 2, not 3"),
        (KINDS, {"inputs": ["x", 0], "label": -1}, "inputs must name a column once, not 'x' again"),
        (KINDS, {"inputs": ["x", "kind"], "label": -1}, "inputs must not name what label names too, 'kind'"),
        (KINDS, {"targets": "y", "label": -1}, "label must not be given beside targets"),
        (KINDS, {"label": -1, "outputs": 1}, "outputs must not be given beside label"),
        (KINDS.replace("4,2", "4,.5"), {"label": -1}, "line 3, column 'kind': labels must be whole numbers or text, not '.5'"),
        (KINDS.replace("4,2", "4,"), {"label": -1}, "line 3, column 'kind': no label may be missing"),
        ("x,kind\n1,2\n3,2\n", {"label": -1}, "at least two classes, not all '2'"),
        (
            "".join(f"1,{i}\n" for i in range(1001)),
            {"label": 1},
            "line 1, column 1: labels must be of at most 1000 classes, not 1,001",
        ),
        ("x,kind\nred,1\nblue,2\n", {}, "line 1|line 2, column 'x': must be a number"),
    ],
)
def test_what_is_wrong_is_named(content: str | bytes, how: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(csv(tmp_path, content), **how)


@pytest.mark.parametrize(
    ("labels", "note", "classes"),
    [
        ((1, 2, 3), "mapped to 3 classes, in order: 1 -> 0, 2 -> 1, 3 -> 2", [0, 1, 2]),
        ((10, 9, 10), "in order: 9 -> 0, 10 -> 1", [1, 0, 1]),
        ((-1, 1, -1), "in order: -1 -> 0, 1 -> 1", [0, 1, 0]),
        ((2.0, 1.0, 2.0), "in order: 1 -> 0, 2 -> 1", [1, 0, 1]),
        ((0, 1, 1), "has the classes 0 to 1, as they are", [0, 1, 1]),
        (("dog", "cat", "dog"), "in order: 'cat' -> 0, 'dog' -> 1", [1, 0, 1]),
        (("True", "False", "True"), "in order: 'False' -> 0, 'True' -> 1", [1, 0, 1]),
    ],
)
def test_labels_are_mapped_by_a_rule_that_is_told(
    labels: tuple[object, ...], note: str, classes: list[int], tmp_path: Path
) -> None:
    path = csv(tmp_path, "x,kind\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels)))
    problem = load(path, label="kind")
    assert problem.labels is not None and problem.labels.tolist() == classes
    np.testing.assert_array_equal(problem.targets, np.eye(max(classes) + 1)[classes])
    assert any(note in said for said in problem.notes), problem.notes


X, EYE = np.arange(6).reshape(3, 2), np.eye(3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"X": X, "Y": EYE, "labels": [2, 1, 0]},
            r"labels\[0\] must agree with the targets, .* not be '2' .*; 2 of 3 rows differ",
        ),
        ({"X": X, "Y": EYE[:, :2], "labels": [0, 1, 5]}, r"labels\[2\] must be the number of an output, from 0 to 1"),
        ({"X": X, "Y": EYE, "labels": ["a", "b", "a"]}, r"labels\[0\] must be the number .* it is 'a', and there are 2"),
        ({"X": X, "Y": EYE, "labels": [0.5, 1, 2]}, r"labels\[0\]: labels must be whole numbers or text, not '0.5'"),
        ({"X": X, "Y": EYE, "labels": [0, 1, np.nan]}, r"labels\[2\] must be finite"),
        ({"X": X, "Y": X[:, :1], "labels": [0, 1, 0]}, "labels must not be given beside targets of 1 column"),
        ({"X": X, "labels": [0, 1]}, r"labels must have shape \(3,\), a label a row, not \(2,\)"),
        ({"X": X, "Y": EYE[:2]}, "Y must have a row for each of the 3 of X, not 2"),
        ({"X": X.astype(complex), "Y": EYE}, "X must hold real numbers, not complex128"),
        ({"X": X.astype(str), "Y": EYE}, "X must hold real numbers, not <U"),
        ({"X": np.array([[1, None]], object), "Y": [1]}, "one holds Python objects"),
        ({"X": X, "Y": [[1], [np.nan], [2]]}, r"Y\[1, 0\] must be finite, not nan"),
        ({"x": X, "y": EYE}, "arrays X and Y, or X and labels, must be there; found x, y"),
        ({"X": 1.0, "Y": 1.0}, r"X must be a matrix with a row a sample, not of shape \(\)"),
        ({"X": X, "labels": X[:, 0] * 1j}, "labels must be whole numbers or text, not complex128"),
        ({"X": X, "Y": EYE[:2], "labels": [0, 1, 2]}, "Y must have a row for each of the 3 labels, not 2"),
    ],
)
def test_arrays_that_do_not_belong_together(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "mine.npz")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"header": True}, "header must not be given for an .npz, which has no text, not True"),
        ({"decimal": ","}, "decimal must not be given for an .npz"),
        ({"outputs": 1}, "outputs must not be given for an .npz, whose Y has as many columns, not 1"),
        ({"inputs": "Z"}, "inputs must name one of the arrays 'X', 'Y', not 'Z'"),
        ({"targets": ["X", "Y"]}, r"targets must name one of the arrays 'X', 'Y', not \['X', 'Y'\]"),
    ],
)
def test_what_arrays_have_no_use_for(how: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", X=X, Y=EYE)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "mine.npz", **how)


@pytest.mark.parametrize(
    ("arrays", "how", "targets"),
    [
        ({"X": X, "Y": EYE, "labels": [1, 2, 3]}, {}, EYE),
        ({"X": X, "Y": EYE, "labels": [0, 1, 2]}, {}, EYE),
        ({"X": X, "labels": ["b", "a", "b"]}, {}, EYE[:, :2][[1, 0, 1]]),
        ({"X": X, "labels": [True, False, True]}, {}, EYE[:, :2][[1, 0, 1]]),
        ({"X": X.astype(np.float16), "Y": [True, False, True]}, {}, [[1], [0], [1]]),
        ({"X": X.astype(np.float32), "Y": np.int8([1, 2, 3])}, {}, [[1], [2], [3]]),
        ({"x": X.reshape(3, 1, 2), "t": EYE}, {"inputs": "x", "targets": ["t"]}, EYE),
    ],
)
def test_arrays_as_people_have_them(arrays: dict[str, Any], how: dict[str, Any], targets: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays)
    problem = load(tmp_path / "mine.npz", **how)
    np.testing.assert_array_equal(problem.inputs, X)
    np.testing.assert_array_equal(problem.targets, targets)
    assert problem.inputs.dtype == problem.targets.dtype == np.float64


def test_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("data must be a .npz, .csv, .tsv or .txt file")):
        load(tmp_path / "mine.xlsx")
    (tmp_path / "mine.npz").write_bytes(b"PK cut off")
    with pytest.raises(ValueError, match=re.escape("mine.npz: must be an .npz of plain arrays")):
        load(tmp_path / "mine.npz")


def test_scaling_is_fitted_on_the_rows_to_train_on() -> None:
    table = np.random.default_rng(0).normal(3, 5, (50, 3))
    table[:, 1] = 0.1
    problem = Problem("mine", table, table[:, :1])
    for kind, check in (
        ("standard", lambda x: (x.mean(0), x.std(0))),
        ("minmax", lambda x: (x.min(0), x.max(0))),
        ("maxabs", lambda x: (np.zeros(3), np.abs(x).max(0))),
    ):
        split = prepare(problem, scaling=kind, target_scaling=kind, held_out=0.2, seed=3)
        assert split.held is not None and len(split.held.inputs) == 10
        low, high = check(split.train.inputs)
        assert low[[0, 2]] == pytest.approx([0, 0]) and high[[0, 2]] == pytest.approx([1, 1])
        plain = prepare(problem, held_out=10, seed=3)  # the same rows
        assert plain.held is not None
        offset, divisor, constant = fit(plain.train.inputs, kind)
        np.testing.assert_allclose(split.held.inputs * divisor + offset, plain.held.inputs)
        assert constant == [1] and any("never change: 'column 1'" in note for note in split.notes)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"scaling": "robust"}, "scaling must be one of none, standard, minmax, maxabs, not 'robust'"),
        ({"target_scaling": "standard"}, "target_scaling must be none for classes"),
        ({"held_out": 3}, "held_out must be less than the 3 rows of mine, not 3"),
        ({"held_out": -1}, "held_out must be at least 0, not -1"),
        ({"held_out": 1.0}, "held_out must be a share from 0 to below 1, .* not 1.0"),
        ({"held_out": 0.1}, "0.1 of the 3 rows of mine is 0"),
        ({"held_out": True}, "held_out must be a number of rows or a share"),
    ],
)
def test_what_cannot_be_prepared(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(Problem("mine", X * 1.0, EYE, np.arange(3)), **how)


def test_a_problem_has_labels_of_its_outputs_and_no_mask() -> None:
    with pytest.raises(ValueError, match=r"labels must be numbers of outputs, from 0 to 2, not 3 \(row 2\)"):
        Problem("mine", X * 1.0, EYE, np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="inputs must not have a mask"):
        Problem("mine", np.ma.masked_less(X * 1.0, 1), EYE)


@pytest.mark.parametrize("size", [1e-200, 1e-170, 1.0, 1e155, 1e300])
def test_columns_of_any_size_are_scaled(size: float) -> None:
    """Squares of very large and very small numbers leave a float64: they are taken of numbers about 1."""
    x = np.random.default_rng(0).normal(size=(50, 2)) / 10 * size
    made = prepare(Problem("any", x, x[:, :1]), scaling="standard", target_scaling="standard").train
    for scaled in (made.inputs, made.targets):
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-9)


def test_a_spread_that_no_float64_holds_is_refused() -> None:
    x = np.array([[5e-324], [0.0], [5e-324]])
    with pytest.raises(ValueError, match=r"^column 0 must have numbers whose spread a float64 can hold, to be scaled"):
        prepare(Problem("tiny", x, x), scaling="standard")
