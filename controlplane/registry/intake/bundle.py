"""A zip of a model and its external data becomes one plain ONNX file.

Every location is resolved here, against the archive's own members and nothing else, before a library sees
the file; what comes out refers to nothing, so later tools never meet a path of a user.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import archive as zips
from controlplane.registry.intake.archive import Member
from controlplane.registry.intake.recognize import Kind, kind_of, not_onnx, refuse_archive_of
from controlplane.registry.intake.tensors import Tensor, quoted
from controlplane.registry.intake.walk import Facts, walk

MAX_SINGLE_FILE_BYTES = int(1.9 * 1024**3)


def single_file(path: Path, *, scratch: Path, total_bytes: int) -> Path:
    """Unpacks the archive and returns the one ONNX file made of it. Raises Unprocessable."""
    with zips.opened(path) as archive:
        members = zips.members(archive, file_bytes=path.stat().st_size, total_bytes=total_bytes)
        refuse_archive_of([member.name for member in members])
        model = _the_model(members)
        if sum(member.size_bytes for member in members) > MAX_SINGLE_FILE_BYTES:
            raise _too_large()
        folder = scratch / "unpacked"
        folder.mkdir()
        files = {member.name: folder / str(index) for index, member in enumerate(members)}
        for member in members:
            zips.unpack(archive, member, files[member.name])
    return _embed(files, model=model.name, target=scratch / "model.onnx")


def _too_large() -> Unprocessable:
    return Unprocessable(
        "too_large_for_one_file",
        "The model with its external data is too large.",
        f"Together they may have {MAX_SINGLE_FILE_BYTES / 1024**3:.1f} GiB for now. Upload a smaller one.",
    )


def _the_model(members: Sequence[Member]) -> Member:
    models = [
        member for member in members if member.name.lower().endswith(".onnx") and member.name.count("/") <= 1
    ]
    if len(models) != 1:
        found = ", ".join(quoted(member.name) for member in models[:3]) or "none"
        raise Unprocessable(
            "no_single_model",
            "The archive must hold exactly one ONNX model.",
            f"At its top or one folder deep it has {len(models)} .onnx files: {found}.",
        )
    return models[0]


def _embed(files: Mapping[str, Path], *, model: str, target: Path) -> Path:
    if kind_of(files[model]) is not Kind.ONNX:
        raise not_onnx(f"The member {quoted(model)} is an archive.")
    facts = checked(files[model])
    if not facts.external:
        return files[model]
    if sum(tensor.size_bytes for tensor in facts.external) > MAX_SINGLE_FILE_BYTES:
        raise _too_large()
    folder = model.rpartition("/")[0]
    proto = onnx.load_model(files[model], load_external_data=False)
    declared = {id_of(tensor): tensor for tensor in facts.external}
    for tensor in tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            facts_of = declared[_id_of_proto(tensor)]
            tensor.raw_data = _values(facts_of, files, folder=folder)
            del tensor.external_data[:]
            tensor.ClearField("data_location")
    if proto.ByteSize() > MAX_SINGLE_FILE_BYTES:
        raise _too_large()
    target.write_bytes(proto.SerializeToString(deterministic=True))
    return target


def checked(path: Path) -> Facts:
    """The walk over a file."""
    return walk(memoryview(path.read_bytes()))


def id_of(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.name, tensor.data_type, tuple(tensor.dims), tuple(sorted(tensor.external.items()))


def _id_of_proto(tensor: Any) -> tuple[Any, ...]:
    external = tuple(sorted((entry.key, entry.value) for entry in tensor.external_data))
    return tensor.name, tensor.data_type, tuple(tensor.dims), external


def _values(tensor: Tensor, files: Mapping[str, Path], *, folder: str) -> bytes:
    location = tensor.external["location"]
    if "\\" in location or ":" in location or any(part in {"", ".", ".."} for part in location.split("/")):
        raise tensor.external_refused(
            f"has its values in {quoted(location)}, which is not a clean relative path"
        )
    file = files.get(f"{folder}/{location}" if folder else location)
    if file is None:
        raise tensor.external_refused(
            f"has its values in {quoted(location)}, which is not in the archive",
            advice="Pack the model together with its data file.",
        )
    offset, length = tensor.range_in(file.stat().st_size)
    with file.open("rb") as source:
        source.seek(offset)
        return source.read(length)


def tensors(model: Any) -> Iterator[Any]:
    """Every tensor of a model, wherever it stands."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _of_node(node)
        for attribute in function.attribute_proto:
            yield from _of_attribute(attribute)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        yield from _of_attribute(attribute)


def _of_attribute(attribute: Any) -> Iterator[Any]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for tensor in (*sparse, *attribute.sparse_tensors):
        yield from (tensor.values, tensor.indices)
    for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
        yield from _of_graph(graph)
