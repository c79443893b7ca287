"""Why TensorRT refused, for people: its own words, the node they are about, and what helps.

It raises nothing. Its parser keeps a list of complaints; its builder answers None and says why in its log.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controlplane.core.errors import Unprocessable
from optimizer.techniques.tensorrt.backends import capability_of
from optimizer.workbench.session import NO_MEMORY

NAMED = 5
CANCELLED = "BuildCanceled"
_WRAPPED = re.compile(r"Error Code \d+: [^(]*\((?P<words>.*?)\.? In \w+(?:\(\))? at /_src.*", re.DOTALL)
_PLACE = re.compile(r"\[\w+\.cpp:\d+: \w+\] ")
_TARGETS = re.compile(r"target\(s\) (?P<names>[\w, ]+?), because")


@dataclass(frozen=True, kw_only=True)
class Complaint:
    """One error of the parser. `operator` and `node` are empty where it is about no node; `domain` is "" for ONNX's."""

    code: str
    words: str
    operator: str = ""
    node: str = ""
    domain: str = ""


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """What is looked for in the vendor's words, and how that is told."""

    words: str
    code: str
    title: str
    advice: str = ""


_OF_PARSER = (
    _Rule(
        words="Failed to parse the ONNX model",
        code="not_onnx",
        title="TensorRT cannot read this file as ONNX.",
    ),
    _Rule(
        words="zero point is not supported",
        code="asymmetric_quantization",
        title="TensorRT takes symmetric quantization only.",
        advice="Quantize for TensorRT, with signed integers and zero points of 0.",
    ),
    _Rule(
        words="input has type Int32",
        code="quantized_bias",
        title="TensorRT takes no quantized bias.",
        advice="Quantize without biases (`QuantizeBias` of ONNX Runtime).",
    ),
    _Rule(
        words="must have same input types",
        code="mixed_types",
        title="Factors of different types meet in one operator.",
        advice="Cast one of them in the model.",
    ),
    _Rule(
        words="Failed to convert ONNX date type",
        code="unsupported_dtype",
        title="TensorRT does not take the type of an input or a weight.",
    ),
)
_SHAPE_INPUT = _Rule(
    words="missing values for shape input",
    code="shape_input",
    title="An input of the model decides shapes by its values.",
    advice="Export the model with that input as a constant.",
)
_OF_BUILDER = (
    _Rule(
        words="FP32 GEMM is not supported",
        code="unsupported_on_capability",
        title="On compute capability 7.5 TensorRT multiplies no matrices in single precision.",
        advice="Convert to FP16 before this step, or leave 7.5 out.",
    ),
    _Rule(
        words="no tactics to implement the operation within workspace limit",
        code="workspace_too_small",
        title="The workspace is too small for this model.",
        advice="Allow more, or lower the most of the open axes.",
    ),
    _Rule(
        words="not self-consistent",
        code="axes_contradict",
        title="The sizes of the open axes contradict what the model computes.",
        advice="Give the axes sizes that go together.",
    ),
    _Rule(
        words="contradictory",
        code="axes_contradict",
        title="The sizes of the open axes contradict what the model computes.",
        advice="Give the axes sizes that go together.",
    ),
    _SHAPE_INPUT,
    _Rule(
        words="ScopeType::kUNDEFINED",
        code="unsupported_branch",
        title="TensorRT cannot build the branches (If) or loops of this model.",
        advice="Export the model for one case, so that nothing is decided while it runs.",
    ),
    *(
        _Rule(
            words=words,
            code="sizes_refused",
            title="TensorRT refuses the sizes of the open axes.",
            advice="Give the axes sizes that the model takes, as those of its data are.",
        )
        for words in (
            "violate shape constraints",
            "Invalid optimization profiles",
            "Dimension mismatch",
            "missing dimensions in profile",
            "dimensions but profile",
        )
    ),
)


OF_SIZES = frozenset({"sizes_refused", "axes_contradict"})


def of_parser(complaints: Sequence[Complaint]) -> Unprocessable:
    """The sentence for a model that could not be parsed: every node with its reason, the first few by name."""
    for complaint in complaints:
        for rule in _OF_PARSER:
            if rule.words in complaint.words:
                return _told(rule, f"{_at(complaint)}{cleaned(complaint.words)}")
    named = "; ".join(map(_unsupported, complaints[:NAMED]))
    more = f"; and {len(complaints) - NAMED} more" if len(complaints) > NAMED else ""
    advice = (
        " Nodes of ONNX Runtime's own operators go when the model is optimized with onnxslim, or not fused at all."
        if any(complaint.domain == "com.microsoft" for complaint in complaints)
        else ""
    )
    return Unprocessable(
        "unsupported_operator",
        "TensorRT cannot build an operator of this model.",
        f"{named or 'It does not say which'}{more}.{advice}",
    )


def _at(complaint: Complaint) -> str:
    return f"{complaint.operator} “{complaint.node}”: " if complaint.node else ""


def _unsupported(complaint: Complaint) -> str:
    """“false” is all that its check of an operator without an importer says."""
    of = f" of {complaint.domain}" if complaint.domain else ""
    if complaint.words == "false":
        why = "TensorRT has no such operator"
    elif "Plugin not found" in complaint.words:
        why = "TensorRT has no such operator and no plugin of that name"
    elif "not found in plugin registry" in complaint.words:
        why = "TensorRT builds it with a plugin that this version does not ship"
    else:
        why = cleaned(complaint.words)
    return f"{complaint.operator}{of} at node “{complaint.node}”: {why}"


def of_shape_inputs(names: Iterable[str]) -> Unprocessable:
    """The sentence for inputs whose values TensorRT would have to know before it builds."""
    return _told(_SHAPE_INPUT, f"It has {', '.join(f'“{name}”' for name in names)}")


def of_builder(errors: Iterable[str]) -> Unprocessable:
    """The sentence for a network that could not be built. Raises MemoryError where that was why."""
    said = list(errors)
    if any(words in line.lower() for line in said for words in (*NO_MEMORY, "outofmemory")):
        raise MemoryError(said[-1])
    for line in said:
        if CANCELLED in line:
            return Unprocessable("stopped", "The build was stopped as asked.", cleaned(line))
        if targets := _TARGETS.search(line):
            named = ", ".join(capability_of(name) for name in re.findall(r"\w+", targets["names"]))
            return Unprocessable(
                "unsupported_on_capability",
                f"TensorRT cannot build this model for compute capability {named}.",
                f"{cleaned(line)}. Leave {named} out, or build from another precision.",
            )
        for rule in _OF_BUILDER:
            if rule.words in line:
                return _told(rule, cleaned(line))
    last = cleaned(said[-1]) if said else "It did not say why"
    return Unprocessable("build_failed", "TensorRT could not build the engine.", f"{last}.")


def _told(rule: _Rule, words: str) -> Unprocessable:
    return Unprocessable(rule.code, rule.title, f"{words.rstrip('.')}. {rule.advice}".strip())


def cleaned(message: str) -> str:
    """The vendor's words without the places in its own source."""
    found = _WRAPPED.search(message)
    words = found["words"] if found else message.partition("\n")[0]
    return _PLACE.sub("", words).strip().rstrip(".")[:500]
