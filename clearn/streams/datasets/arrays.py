"""A user's own arrays: in memory, in an .npz file, or in CSV files."""

from __future__ import annotations

import csv
import hashlib
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clearn.errors import ConfigError, DataError
from clearn.parts.columns import Column, as_column
from clearn.parts.samples import TensorSamples
from clearn.streams.datasets.record import HALF, DataSet, Options, finish, held_out, nearest, root_of, sha256_of

if TYPE_CHECKING:
    from clearn.streams import Array

PARTS = ("x_train", "y_train", "x_test", "y_test")
CHANNELS = (1, 3)  # counts that are taken for channels without being told
LAYOUTS = ("NHWC", "NCHW")


def from_arrays(
    x: Array,
    y: Array,
    x_test: Array | None = None,
    y_test: Array | None = None,
    *,
    layout: str | None = None,
    normalise: str | Mapping[str, Any] = "auto",
    columns: Mapping[str, Array] | None = None,
    name: str = "arrays",
) -> DataSet:
    """Take arrays (NumPy, torch or nested lists) as a data set.

    Inputs are taken by their shape:
      * (n, d): vectors, any numbers, kept as float32;
      * (n, H, W): grey images;
      * (n, H, W, C) or (n, C, H, W): images, C = 1 or 3 on one side only. Where both sides or neither fit,
        `layout` has to say "NHWC" or "NCHW" (any C is fine then).
    Pixels are integers 0..255, or floats k/255 as torchvision's ToTensor makes them. Arrays that are already
    as stored (contiguous uint8 (n, C, H, W) or float32 (n, d)) are not copied.

    Labels may be anything that sorts: strings, numbers with gaps. The j-th in sorted order is label j.

    Args:
        x: training inputs.
        y: (n,) training labels.
        x_test: test inputs; None makes every fifth sample of each class test data.
        y_test: their labels; each must occur in `y`.
        layout: where the shape leaves doubt.
        normalise: one of `record.NORMALISE` or {mean, std}; "auto" is 0.5 and 0.5.
        columns: whole numbers or text by name, one for each row of `x`; requests to forget can name their values.
        name: shown in reports and errors.

    Raises:
        DataError: what was given cannot be taken for images or vectors with labels.
    """
    if (x_test is None) != (y_test is None):
        raise DataError(f"{name}: x_test and y_test belong together, got one of them: give both, or neither")
    inputs, (classes, labels) = as_inputs(x, layout, name), encode(y, name)
    _same_length(inputs, labels, name)
    known = as_columns(columns or {}, len(labels))
    if x_test is None or y_test is None:
        is_test = held_out(labels)
        train, test = (TensorSamples(inputs[of], labels[of]) for of in (~is_test, is_test))
        known = {key: one.take((~is_test).nonzero()[:, 0]) for key, one in known.items()}
    else:
        train = TensorSamples(inputs, labels)
        test = TensorSamples(as_inputs(x_test, layout, name), labels_among(classes, y_test, name))
        _same_length(test.inputs, test.labels, name)
    if train.shape != test.shape:
        raise DataError(f"{name}: train inputs are {train.shape}, test inputs {test.shape}; give both the same shape")
    mean, std = HALF if inputs.ndim == 4 else ((), ())
    names = tuple(str(c) for c in classes.tolist())
    checksums = {"train": sha256_of(train.inputs, train.labels), "test": sha256_of(test.inputs, test.labels)}
    return finish(DataSet(name, train, test, names, mean, std, checksums, known), Options(normalise=normalise))


def arrays(options: Options) -> DataSet:
    """Read an .npz file with x_train, y_train, x_test, y_test; `from_arrays` says what may be in them.

    Of other arrays only those named in `columns` are read.
    """
    path, columns = find_file(options, str(options.file)), options.columns or ()
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {key: archive[key] for key in archive.files if key in (*PARTS, *columns)}
            names = archive.files
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as .npz ({error}); write plain arrays of numbers or fixed-width text "
            "with np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"
        ) from error
    if not {"x_train", "y_train"} <= set(found):
        raise DataError(
            f"{path} holds {', '.join(names) or 'nothing'}; {', '.join(PARTS)} are needed: "
            "np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"
        )
    for key in columns:
        if key in PARTS or key not in found:
            others = [other for other in names if other not in PARTS]
            raise DataError(f"{path} has no array of one value a training sample called {key!r}{_others(key, others)}")
    known = {key: found[key] for key in columns}
    return from_arrays(*(found.get(key) for key in PARTS), columns=known, name="arrays")  # type: ignore[arg-type]  # see above


def table(options: Options) -> DataSet:
    """Read CSV files with a head line; all columns but the label's and those set aside are numbers, kept as float32.

    Labels that all are whole numbers sort as numbers, others as text.
    """
    path = find_file(options, str(options.file))
    aside = options.columns or ()
    head, x, y, columns = _read_csv(path, options.label, aside)
    x_test = y_test = None
    checksums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    if options.test_file is not None:
        other = find_file(options, options.test_file)
        other_head, x_test, y_test, _ = _read_csv(other, options.label, aside)
        if other_head != head:
            raise DataError(f"{other} has columns {other_head}, {path} has {head}; give both the same columns in order")
        checksums[other.name] = hashlib.sha256(other.read_bytes()).hexdigest()
    both = y + (y_test or [])
    if all(label.lstrip("-").isdecimal() for label in both):
        numbers, test_numbers = [int(v) for v in y], None if y_test is None else [int(v) for v in y_test]
        data = from_arrays(x, numbers, x_test, test_numbers, columns=columns, name="csv")
    else:
        data = from_arrays(x, y, x_test, y_test, columns=columns, name="csv")
    return replace(data, checksums=checksums)


def as_inputs(x: Array, layout: str | None, name: str) -> Tensor:
    """Turn an array into uint8 images (n, C, H, W) or float32 vectors (n, d), as `from_arrays` says."""
    x = _tensor(x, name)
    if x.ndim == 2:
        return _vectors(x, name)
    if x.ndim not in (3, 4):
        raise DataError(
            f"{name}: inputs have shape {tuple(x.shape)}; right are vectors (n, d) or images "
            "(n, H, W), (n, H, W, C), (n, C, H, W): reshape them"
        )
    pixels = _bytes(x, name)
    if x.ndim == 3:
        return pixels[:, None]
    return (pixels.permute(0, 3, 1, 2) if _channels_last(x, layout, name) else pixels).contiguous()


def encode(y: Array, name: str) -> tuple[np.ndarray[Any, Any], Tensor]:
    """Number labels by their sorted order.

    Returns:
        classes: (C,) the different labels, ascending.
        labels: (n,) int64.
    """
    values = _labels(y, name)
    classes, labels = np.unique(values, return_inverse=True)
    return classes, torch.from_numpy(labels.astype(np.int64))


def labels_among(classes: np.ndarray[Any, Any], y: Array, name: str) -> Tensor:
    """Number test labels by the classes of the training labels: (n,) int64.

    Raises:
        DataError: a label is not among them.
    """
    values = _labels(y, name)
    known = np.isin(values, classes)
    if not known.all():
        strange = sorted({str(v) for v in values[~known].tolist()})
        raise DataError(
            f"{name}: test labels {', '.join(strange[:5])} have no training sample; known are "
            f"{', '.join(str(c) for c in classes[:10].tolist())}: drop these test samples or mend the labels"
        )
    return torch.from_numpy(np.searchsorted(classes, values).astype(np.int64))


def as_columns(given: Mapping[str, Array], n: int) -> dict[str, Column]:
    """Take one value for each of n training samples, by name."""
    found = {name: as_column(values, name) for name, values in given.items()}
    for name, one in found.items():
        if len(one) != n:
            raise DataError(f"column {name!r} has {len(one)} values; one for each of the {n} training samples is right")
    return found


def find_file(options: Options, name: str) -> Path:
    """Find a file as given, or below the root."""
    places = [Path(name).expanduser(), root_of(options) / name]
    for place in places:
        if place.is_file():
            return place
    where = ", ".join(dict.fromkeys(str(p.absolute()) for p in places))
    raise DataError(f"data={options.name}: file={name!r} was not found: looked in {where}; give the path of your file")


def _tensor(x: Array, name: str) -> Tensor:
    if isinstance(x, Tensor):
        return x.detach().cpu()
    try:
        values = np.ascontiguousarray(x)
    except ValueError as error:
        raise DataError(f"{name}: inputs differ in shape ({error}); give all samples one shape") from error
    if values.dtype.kind not in "buif":
        raise DataError(f"{name}: inputs are {values.dtype}; numbers are needed: uint8 images or float32 vectors")
    if values.dtype.kind == "u" and values.dtype != np.uint8:
        values = values.astype(np.int64)  # torch knows few operations on wider unsigned integers
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _vectors(x: Tensor, name: str) -> Tensor:
    if x.dtype == torch.uint8:
        raise DataError(
            f"{name}: inputs are uint8 of shape {tuple(x.shape)}; for images use x.reshape(n, height, "
            "width), for vectors x.astype('float32')"
        )
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise DataError(f"{name}: inputs hold NaN or infinite values; drop or fill these samples")
    return x.to(torch.float32).contiguous()


def _bytes(x: Tensor, name: str) -> Tensor:
    """Pixels as uint8: whole numbers 0..255 as they are, floats k/255 as k."""
    if x.dtype == torch.uint8 or not x.numel():
        return x.to(torch.uint8)
    pixels = x * 255 if x.is_floating_point() else x
    whole = pixels.round() if x.is_floating_point() else pixels
    if not bool(((pixels - whole).abs() < 1e-3).all()) or int(whole.min()) < 0 or int(whole.max()) > 255:
        raise DataError(
            f"{name}: image pixels are {x.dtype} from {float(x.min()):.3g} to {float(x.max()):.3g}; right "
            "are integers 0..255 or k/255 as ToTensor makes them: drop Normalize, or round with "
            "(x * 255).round().astype('uint8') where x lies in 0..1"
        )
    return whole.to(torch.uint8)


def _channels_last(x: Tensor, layout: str | None, name: str) -> bool:
    if layout is not None:
        if layout not in LAYOUTS:
            raise ConfigError(f"layout={layout!r} must be 'NHWC' (channels last) or 'NCHW' (channels first)")
        return layout == "NHWC"
    first, last = x.shape[1] in CHANNELS, x.shape[3] in CHANNELS
    if first == last:
        raise DataError(
            f"{name}: images of shape {tuple(x.shape)} may be (n, H, W, C) or (n, C, H, W), 1 or 3 channels "
            f"stand on {'both sides' if first else 'neither side'}: say layout='NHWC' or layout='NCHW'"
        )
    return last


def _labels(y: Array, name: str) -> np.ndarray[Any, Any]:
    values = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]  # scikit-learn's and Keras's column of labels
    if values.ndim != 1:
        raise DataError(
            f"{name}: labels have shape {values.shape}; one label a sample is right: y.argmax(1) if one-hot"
        )
    if values.dtype.kind not in "biufUS":
        raise DataError(f"{name}: labels are {values.dtype}; numbers or text are right: y.astype(str)")
    if values.dtype.kind == "f" and any(math.isnan(v) for v in values.tolist()):
        raise DataError(f"{name}: labels hold NaN; drop these samples")
    return values


def _same_length(inputs: Tensor, labels: Tensor, name: str) -> None:
    if len(inputs) != len(labels) or not len(inputs):
        raise DataError(f"{name}: {len(inputs)} inputs and {len(labels)} labels; give one label for each")


def _read_csv(
    path: Path, label: str, aside: Sequence[str]
) -> tuple[list[str], np.ndarray[Any, Any], list[str], dict[str, list[str]]]:
    """Read a head line and rows.

    Args:
        path: of the file.
        label: name of the label's column.
        aside: names of columns that are no inputs.

    Returns:
        names: d names of the inputs.
        x: (n, d) float32.
        labels: n of them.
        columns: n values for each name set aside.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        head = [h.strip() for h in next(rows, [])]
        inputs = [at for at, name in enumerate(head) if name != label and name not in aside]
        _check_head(path, head, label, aside, len(inputs))
        places = {name: head.index(name) for name in (label, *aside)}
        columns: dict[str, list[str]] = {name: [] for name in places}
        values = []
        for row in rows:
            if not row:
                continue
            if len(row) != len(head):
                raise DataError(
                    f"{path} line {rows.line_num} has {len(row)} fields, the head line {len(head)}: mend that line"
                )
            for name, at in places.items():
                columns[name].append(row[at].strip())
            values.append([row[at] for at in inputs])
    names = [head[at] for at in inputs]
    try:
        x = np.array(values, dtype=np.float32).reshape(len(values), len(names))
    except ValueError:
        raise DataError(_first_bad_field(path, names, values)) from None
    return names, x, columns.pop(label), columns


def _check_head(path: Path, head: list[str], label: str, aside: Sequence[str], n_inputs: int) -> None:
    if label not in head or len(head) < 2:
        raise DataError(f"{path} has columns {head}; one must be label={label!r}, the others numbers: set label")
    for name in aside:
        if name == label or name not in head:
            others = [other for other in head if other != label]
            raise DataError(f"{path} has no column {name!r} beside the label {label!r}{_others(name, others)}")
    if not n_inputs:
        raise DataError(f"{path} has columns {head}; with {', '.join(aside)} set aside no input is left: name fewer")


def _others(name: str, known: Iterable[str]) -> str:
    """End a message about a column that is not there."""
    names = list(known)
    return nearest(name, names) if names else "; there is none: drop `columns`"


def _first_bad_field(path: Path, names: list[str], values: list[list[str]]) -> str:
    for number, row in enumerate(values, start=1):
        for column, field in zip(names, row, strict=True):
            try:
                float(field)
            except ValueError:
                return (
                    f"{path} sample {number}, column {column!r} holds {field!r}, a number is needed: encode "
                    "or drop that column, fill the gaps"
                )
    raise AssertionError("numpy read less than float() does")
