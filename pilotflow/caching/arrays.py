"""NumPy arrays and pandas frames as the text of keys. Neither package is imported here."""

from __future__ import annotations

import sys
from typing import Any

from pilotflow.caching.text import KeyWriter


def put_array(writer: KeyWriter, value: Any, kind: type) -> bool:
    """Write an array, a scalar or a dtype of NumPy, or a frame, a series or an index of pandas; False if it is none."""
    package = kind.__module__.partition(".")[0]
    if package == "numpy" and (numpy := sys.modules.get("numpy")) is not None:
        return _put_numpy(writer, value, kind, numpy)
    if package == "pandas" and (pandas := sys.modules.get("pandas")) is not None:
        return _put_pandas(writer, value, kind, pandas)
    return False


def _put_numpy(writer: KeyWriter, value: Any, kind: type, numpy: Any) -> bool:
    if kind in (numpy.ndarray, numpy.memmap):
        writer.named("array", numpy.ndarray, (repr(value.dtype), value.shape))
        if value.dtype.hasobject:
            writer.put(value.tolist())
        else:
            writer.buffer(numpy.ascontiguousarray(value).reshape(-1).view(numpy.uint8) if value.size else b"")
        return True
    if isinstance(value, numpy.generic):
        writer.named("scalar", numpy.generic, (repr(value.dtype), value.tobytes()))
        return True
    if isinstance(value, numpy.dtype):
        writer.named("dtype", numpy.dtype, (repr(value),))
        return True
    return False


def _put_pandas(writer: KeyWriter, value: Any, kind: type, pandas: Any) -> bool:
    if isinstance(value, pandas.DataFrame):
        columns = [value.iloc[:, number] for number in range(value.shape[1])]
        writer.named("frame", pandas.DataFrame, (value.columns, value.index, dict(value.attrs)))
        for column in columns:
            _put_column(writer, column.array)
    elif isinstance(value, pandas.MultiIndex):
        writer.named("index", pandas.MultiIndex, (list(value.names), value.tolist()))
    elif isinstance(value, pandas.Index):
        writer.named("index", pandas.Index, (value.name,))
        _put_column(writer, value.array)
    elif isinstance(value, pandas.Series):
        writer.named("series", pandas.Series, (value.name, value.index))
        _put_column(writer, value.array)
    elif isinstance(value, pandas.Timestamp):
        writer.named("timestamp", pandas.Timestamp, (value.isoformat(), value.unit, str(value.tz)))
    elif isinstance(value, pandas.Timedelta):
        writer.named("timedelta", pandas.Timedelta, (value.isoformat(), value.unit))
    elif value is pandas.NA or value is pandas.NaT:
        writer.named("missing", kind, ())
    else:
        return False
    return True


def _put_column(writer: KeyWriter, array: Any) -> None:
    """An array of pandas: plain ones by their buffer, the others value by value."""
    dtype = str(array.dtype)
    writer.put(dtype)
    if dtype == "category":
        writer.put((array.codes, list(array.categories), array.ordered))
    elif hasattr(array.dtype, "numpy_dtype") or dtype in ("string", "str"):
        writer.put(list(array))
    else:
        numpy_array = array.to_numpy() if array.dtype.kind not in "mM" else array.asi8
        writer.put(list(array) if numpy_array.dtype.hasobject else numpy_array)
