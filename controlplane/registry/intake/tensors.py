"""What a tensor declares against what it holds, in Python integers, which do not overflow."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.core.errors import Unprocessable

MAX_RANK = 16
EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})

# onnx.TensorProto.DataType: number -> (name in the Open Inference Protocol or onnx, bits, field of its values)
_TYPES = {
    1: ("FP32", 32, "float_data"),
    2: ("UINT8", 8, "int32_data"),
    3: ("INT8", 8, "int32_data"),
    4: ("UINT16", 16, "int32_data"),
    5: ("INT16", 16, "int32_data"),
    6: ("INT32", 32, "int32_data"),
    7: ("INT64", 64, "int64_data"),
    8: ("BYTES", 0, "string_data"),
    9: ("BOOL", 8, "int32_data"),
    10: ("FP16", 16, "int32_data"),
    11: ("FP64", 64, "double_data"),
    12: ("UINT32", 32, "uint64_data"),
    13: ("UINT64", 64, "uint64_data"),
    14: ("COMPLEX64", 64, "float_data"),
    15: ("COMPLEX128", 128, "double_data"),
    16: ("BF16", 16, "int32_data"),
    17: ("FP8E4M3FN", 8, "int32_data"),
    18: ("FP8E4M3FNUZ", 8, "int32_data"),
    19: ("FP8E5M2", 8, "int32_data"),
    20: ("FP8E5M2FNUZ", 8, "int32_data"),
    21: ("UINT4", 4, "int32_data"),
    22: ("INT4", 4, "int32_data"),
    23: ("FP4E2M1", 4, "int32_data"),
    24: ("FP8E8M0", 8, "int32_data"),
    25: ("UINT2", 2, "int32_data"),
    26: ("INT2", 2, "int32_data"),
}
SIGNATURE_TYPES = frozenset(
    {
        "BOOL",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "FP16",
        "FP32",
        "FP64",
        "BYTES",
    }
)


def type_name(data_type: int) -> str | None:
    """None for a number that is no element type."""
    row = _TYPES.get(data_type)
    return row[0] if row else None


def dense_bytes(data_type: int, elements: int) -> int:
    """Memory of that many elements; a string counts as a pointer's worth."""
    _, bits, _ = _TYPES[data_type]
    return -(-elements * (bits or 64) // 8)


def quoted(name: str) -> str:
    return f"“{name[:77]}…”" if len(name) > 80 else f"“{name}”"


@dataclass(kw_only=True)
class Tensor:
    """A tensor as the file declares it. `values` counts what each field of values holds."""

    name: str = ""
    dims: list[int] = field(default_factory=list)
    data_type: int = 0
    raw_bytes: int | None = None
    values: dict[str, int] = field(default_factory=dict)
    segmented: bool = False
    is_external: bool = False
    external: dict[str, str] = field(default_factory=dict)

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def size_bytes(self) -> int:
        return dense_bytes(self.data_type, self.elements)

    def check(self) -> None:
        """Raises Unprocessable that names the tensor (`bad_tensor`, `external_data`)."""
        if self.data_type not in _TYPES:
            raise self.bad(f"has the unknown element type {self.data_type}")
        if len(self.dims) > MAX_RANK:
            raise self.bad(f"has more than the {MAX_RANK} dimensions that are read")
        if any(size < 0 for size in self.dims):
            raise self.bad(f"has a negative dimension in {self.dims}")
        if self.segmented:
            raise self.bad("is stored in segments, which no runtime reads")
        if self.is_external or self.external:
            self._check_external()
        else:
            self._check_values()

    def _check_values(self) -> None:
        _, bits, field_of_values = _TYPES[self.data_type]
        others = [name for name, count in self.values.items() if count and name != field_of_values]
        if others:
            raise self.bad(f"keeps its values in {others[0]}, which its type does not use")
        held = self.values.get(field_of_values, 0)
        if self.raw_bytes is not None:
            if held or not bits:
                raise self.bad("keeps its values twice")
            if self.raw_bytes != self.size_bytes:
                raise self.bad(f"declares {self.size_bytes:,} bytes but holds {self.raw_bytes:,}")
        elif held != self._expected_values(bits):
            raise self.bad(f"declares {self._expected_values(bits):,} values but holds {held:,}")

    def _expected_values(self, bits: int) -> int:
        if self.data_type in (14, 15):
            return 2 * self.elements
        return -(-self.elements * bits // 8) if bits in (2, 4) else self.elements

    def _check_external(self) -> None:
        if not self.is_external:
            raise self.external_refused("names external data but is marked as stored inside")
        if self.raw_bytes is not None or any(self.values.values()):
            raise self.external_refused("keeps its values both inside and outside")
        if self.data_type == 8:
            raise self.external_refused("keeps strings outside, which is not possible")
        unknown = sorted(self.external.keys() - EXTERNAL_KEYS)
        if unknown:
            raise self.external_refused(f"has the unknown external key {quoted(unknown[0])}")
        if not self.external.get("location"):
            raise self.external_refused("does not say in which file its values are")
        for key in ("offset", "length"):
            self._number(key)

    def _number(self, key: str) -> int | None:
        text = self.external.get(key)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) <= 18):
            raise self.external_refused(f"has the impossible {key} {quoted(text)}")
        return int(text)

    def range_in(self, file_bytes: int) -> tuple[int, int]:
        """Offset and length of its values in the file. Raises Unprocessable if they are not within it."""
        offset = self._number("offset") or 0
        length = self._number("length")
        if length is None:
            length = self.size_bytes
        if length != self.size_bytes:
            raise self.external_refused(f"declares {self.size_bytes:,} bytes but its length is {length:,}")
        if offset + length > file_bytes:
            raise self.external_refused(
                f"needs the bytes {offset:,} to {offset + length:,} of {quoted(self.external['location'])}, "
                f"which has {file_bytes:,}"
            )
        return offset, length

    def bad(self, problem: str) -> Unprocessable:
        return Unprocessable(
            "bad_tensor",
            "A tensor of the model is not what it declares.",
            f"The tensor {quoted(self.name)} {problem}. Export the model again.",
        )

    def external_refused(self, problem: str, *, advice: str = "Export the model again.") -> Unprocessable:
        return Unprocessable(
            "external_data",
            "The model's external data cannot be used.",
            f"The tensor {quoted(self.name)} {problem}. {advice}",
            extra={"tensor": self.name},
        )


def parameter_totals(bytes_by_type: Mapping[int, int]) -> dict[str, int]:
    return {
        name: count
        for data_type, count in sorted(bytes_by_type.items(), key=lambda item: -item[1])
        if (name := type_name(data_type)) is not None
    }
