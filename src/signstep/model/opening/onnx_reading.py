"""An ONNX file as somebody may have made it to harm: what it claims is checked before anything is opened or held."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from signstep.errors import LoadError, MissingExtraError
from signstep.io.archives import check_held
from signstep.io.caps import current, how

_LONGEST_SHAPE = 64


def read(path: Path) -> tuple[Any, tuple[Path, ...]]:
    """The graph of a file with its tensors, and the other files that it reads.

    Nothing outside of the file's folder is opened, and no size is believed that the files cannot have.

    Raises:
        LoadError: it is no model, or asks for that.
        MissingExtraError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx") from error
    if not path.is_file():
        raise LoadError(f"the model {path} does not exist", remedy="check the path")
    check_held(path.stat().st_size, str(path))
    try:
        graph = onnx.load_model(str(path), load_external_data=False)
    except Exception as error:  # of protobuf, of every kind
        raise LoadError(
            f"{path} cannot be loaded as an ONNX model ({type(error).__name__})", remedy="export it again"
        ) from error
    if not graph.graph.node:
        raise LoadError(f"{path} holds no graph of ONNX", remedy="export the model again")
    tensors = list(_tensors(graph.graph))
    if len(graph.graph.node) + len(tensors) > current().names:
        raise LoadError(f"{path} has over {current().names} nodes and tensors", remedy=how("names"))
    _refuse_bombs(graph.graph, path)
    files = [_checked(part, path) for part in tensors]
    outside = tuple(dict.fromkeys(file for file in files if file is not None))
    check_held(sum(file.stat().st_size for file in outside), f"{path} with its data")
    if outside:
        from onnx.external_data_helper import load_external_data_for_model

        load_external_data_for_model(graph, str(path.parent))
    return graph, outside


def _tensors(graph: Any) -> Iterator[Any]:
    """All tensors of a graph and of the graphs inside of it, level by level."""
    level = [graph]
    while level:
        inside = []
        for one in level:
            yield from one.initializer
            for sparse in one.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            for node in one.node:
                for part in node.attribute:
                    if part.HasField("t"):
                        yield part.t
                    yield from part.tensors
                    inside += [part.g] if part.HasField("g") else []
                    inside += list(part.graphs)
        level = inside


def _checked(tensor: Any, path: Path) -> Path | None:
    """The file that a tensor lies in, if it is another one.

    Raises:
        LoadError: its size is not what its shape says, or the file lies outside of the folder.
    """
    from onnx import helper

    name = f"{path}: the tensor {tensor.name[:60]!r}"
    if any(size < 0 for size in tensor.dims):
        raise LoadError(f"{name} claims the shape {tuple(tensor.dims)}", remedy="export the model again")
    try:
        wide = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError) as error:
        raise LoadError(
            f"{name} has no type that there is ({tensor.data_type})", remedy="export the model again"
        ) from error
    size = math.prod(tensor.dims) * wide
    check_held(size, name)
    if tensor.data_location != tensor.EXTERNAL:
        return None
    told = {entry.key: entry.value for entry in tensor.external_data}
    place = told.get("location", "")
    file: Path = (path.parent / place).resolve()
    folder = path.parent.resolve()
    if not place or Path(place).is_absolute() or not file.is_relative_to(folder):
        raise LoadError(f"{name} lies in {place!r}, outside of the model's folder", remedy="export the model again")
    if not file.is_file():
        raise LoadError(f"{name} lies in {place}, which is missing", remedy=f"copy that file beside {path.name} too")
    begin, length = (told.get(key, default) for key, default in (("offset", "0"), ("length", str(size))))
    if not (begin.isdecimal() and length.isdecimal()) or int(begin) + max(int(length), size) > file.stat().st_size:
        raise LoadError(f"{name} claims {size} bytes of {place}, which has fewer", remedy="copy or export it again")
    return file


def _refuse_bombs(graph: Any, path: Path) -> None:
    """See that no node spreads a constant to a size that is held nowhere; what is computed on the way is not seen here.

    Raises:
        LoadError: one does.
    """
    from onnx import numpy_helper

    shapes = {part.name: part for part in graph.initializer if math.prod(part.dims) <= _LONGEST_SHAPE}
    shapes |= {
        node.output[0]: part.t
        for node in graph.node
        if node.op_type == "Constant"
        for part in node.attribute
        if node.output
    }
    for node in graph.node:
        place = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}.get(node.op_type)
        given = None if place is None or len(node.input) <= place else shapes.get(node.input[place])
        if given is not None and given.data_location != given.EXTERNAL:
            try:
                sizes = [int(size) for size in numpy_helper.to_array(given).reshape(-1)]
            except Exception as error:  # a tensor that is none
                raise LoadError(
                    f"{path}: the shape of {node.op_type} cannot be read", remedy="export the model again"
                ) from error
            check_held(4 * math.prod(max(1, size) for size in sizes), f"{path}: what {node.op_type} makes")
