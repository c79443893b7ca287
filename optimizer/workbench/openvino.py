"""Opens OpenVINO IR as the serving stack does, behind the two words of ONNX Runtime that are used here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlplane.core import openvino_ir
from controlplane.core.errors import Unprocessable
from optimizer.workbench.session import first_line, pass_on
from optimizer.workbench.signature import TensorSpec

DTYPES: Mapping[str, str] = {
    "boolean": "BOOL",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
    "string": "BYTES",
}


class OpenVinoSession(openvino_ir.Opened):
    """It also says what goes in and out."""

    def specs(self) -> dict[str, tuple[TensorSpec, ...]]:
        """By `inputs` and `outputs`, in no order of their own."""
        return {
            "inputs": tuple(map(_spec, self.inputs, self.compiled.inputs)),
            "outputs": tuple(map(_spec, self.outputs, self.compiled.outputs)),
        }


def open_session(path: Path, *, threads: int = 1) -> OpenVinoSession:
    """Raises Unprocessable("model_does_not_open") with the runtime's own reason."""
    import openvino

    try:
        return OpenVinoSession(openvino.Core(), path, threads=threads)
    except Exception as error:  # its exceptions share no base class but Exception
        pass_on(error)
        raise Unprocessable(
            "model_does_not_open", "OpenVINO cannot open this model.", reason(error)
        ) from error


def load_runtime() -> None:
    """With its kernels for this processor, which it loads when it is first asked."""
    import openvino

    openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")


def reason(error: BaseException) -> str:
    """OpenVINO's own sentence: it names its source files first, and says last what was wrong."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    return lines[-1][:500] if lines else first_line(error)


def _spec(name: str, port: Any) -> TensorSpec:
    kind = port.get_element_type().get_type_name()
    shape = tuple("?" if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(name=name, dtype=DTYPES.get(kind, kind), shape=shape)
