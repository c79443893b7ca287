"""An engine's whole way, on the real parts: its job, its variant, its gate, and where it may not go."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils.html import escape

from controlplane.core.errors import Conflict, Unprocessable
from controlplane.registry import report_file
from controlplane.registry import services as registry
from controlplane.registry.engines import Engine, Gpu, why_not
from controlplane.registry.models import Variant
from deployments import services as deployments
from deployments import specs
from deployments.models import Target
from optimizer import services
from optimizer.models import Job
from optimizer.worker import attempt, gpus, supervision
from optimizer.worker.hold import Cancelled, Hold
from tests import toolchains
from tests.faults.workshop import ITEMS, Workshop, history
from tests.optimizer import jobs, onnx_models
from tests.optimizer.test_pages import text

pytestmark = pytest.mark.django_db

RECIPE = [
    {"technique": "fp16"},
    {"technique": "tensorrt", "params": {"capabilities": ["8.6", "8.9"], "axes": ["n=1/4/16"]}},
]


ELSEWHERE = "Triton serves it, on a Kubernetes cluster with a GPU of compute capability 8.6 or 8.9."

type Build = Callable[..., Variant]


@pytest.fixture
def build(three, settings: Any, tmp_path) -> Build:
    """What a worker makes of a recipe, in this process: the techniques, each on its toolchain, and the measurement."""
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, home=tmp_path, measure_budget_s=1)
    kept = settings.STORAGES["artifacts"] | {"OPTIONS": {"location": tmp_path / "artifacts"}}
    settings.STORAGES = settings.STORAGES | {"artifacts": kept}
    owner, _, _ = three
    shop = Workshop.open(tmp_path, actor=owner.actor)

    def made(recipe: list[dict[str, Any]], *, queue: str) -> Variant:
        job = jobs.queued(owner.actor, shop.version, recipe=recipe, evaluation_set=shop.evaluation_set)
        assert job.queue == queue
        Job.objects.filter(pk=job.pk).update(run_after=Now())
        assert attempt.run(job.pk, owner="w1@host") == "succeeded", history(job)
        lines = history(job)
        assert any(line.startswith("TensorRT: Engine generation completed") for line in lines)
        assert not any("cudaError" in line for line in lines)
        return Variant.objects.get(job_id=job.pk)

    return made


@pytest.fixture
def engine(build: Build, monkeypatch: pytest.MonkeyPatch) -> Variant:
    toolchains.interpreter("tensorrt")
    seen = gpus.Found(gpus=(gpus.Gpu(uuid="GPU-1", name="NVIDIA L4"),), driver="550.54.15")
    monkeypatch.setattr(gpus, "found", lambda: seen)
    return build(RECIPE, queue="optimize.cpu.tensorrt")


def test_a_recipe_on_two_toolchains_is_one_job_of_a_worker_that_has_both(build: Build) -> None:
    """Integers by NNCF, which are symmetric, and their engine; its answers are those of the quantized model."""
    for key in ("openvino", "tensorrt"):
        toolchains.interpreter(key)
    integers = {"technique": "int8-static", "params": {"tool": "nncf", "calibration_items": 8}}
    made = build([integers, RECIPE[1]], queue="optimize.cpu.openvino.tensorrt")
    assert (made.format, made.precision, made.verdict) == ("tensorrt", "int8", "not_measured")
    quantized, compiled = made.provenance["steps"]
    assert {"nncf", "openvino"} <= quantized["versions"].keys()
    assert "tensorrt-rtx-cu12" in compiled["versions"]
    facts = Engine.of(made.provenance)
    assert facts is not None
    assert (facts.source_sha256, facts.timing_cache) == (quantized["output_sha256"], "none")
    assert facts.calibration_sha256 == quantized["calibration"]["sha256"]
    accuracy = made.reports.get().data["accuracy"]
    assert 0.8 < accuracy["agreement"]["value"] <= 1
    assert accuracy["compared"] < ITEMS, "those that calibrated are not compared"


def test_an_engine_is_bound_to_its_gpus_promoted_by_override_only_and_served_by_triton_only(
    three, engine
) -> None:
    owner, _, _ = three
    model = engine.version.model
    assert (engine.format, engine.precision, engine.verdict) == ("tensorrt", "fp16", "not_measured")

    facts = Engine.of(engine.provenance)
    assert facts is not None
    assert facts.capabilities == ("8.6", "8.9")
    assert facts.source_sha256 == engine.provenance["steps"][0]["output_sha256"]
    assert facts.size_bytes == engine.artifact.size_bytes
    first, last = engine.provenance["steps"]
    assert ("gpu" in first, last["gpu"]) == (False, {"name": "NVIDIA L4", "driver": "550.54.15"})
    assert why_not(facts, Gpu(capability="8.6", version=facts.version)) == ""
    refusal = "It was built for compute capability 8.6 and 8.9; this GPU has 7.5."
    assert why_not(facts, Gpu(capability="7.5")) == refusal

    with pytest.raises(Conflict) as gate:
        registry.move_alias(owner.actor, model, name="champion", variant=engine)
    assert gate.value.code == "gate_failed"
    assert gate.value.detail.startswith(
        "Not measured: there is no matching hardware here; the model that it was compiled from: agrees with the parent"
    )
    registry.move_alias(owner.actor, model, name="champion", variant=engine, override="Measured by hand.")

    target = Target.objects.create(team=owner.actor.team, name="here", kind="local")
    endpoint, _ = deployments.create_deployment(owner.actor, name="endpoint", target=target)
    with pytest.raises(Unprocessable) as served:
        deployments.add_revision(owner.actor, endpoint, variant=engine, spec=specs.read_spec({}))
    assert (served.value.code, served.value.title) == (
        "format_not_served",
        "The stack fastapi does not serve the format TensorRT engine.",
    )
    assert served.value.detail == f"Choose the stack triton. {ELSEWHERE}"
    revision = deployments.add_revision(
        owner.actor, endpoint, variant=engine, spec=specs.read_spec({"stack": "triton"})
    )
    assert revision.variant_id == engine.pk

    page = text(owner.browser.get(engine.get_absolute_url()))
    for said in (
        "Compute capability 8.6 8.9",
        f"TensorRT for RTX {facts.version}",
        "1 × 3 × 12 × 12 to 16 × 3 × 12 × 12 tuned for 4 × 3 × 12 × 12",
        "Last lines of the build",
        "The answers compared are those of the ONNX model that it was compiled from.",
    ):
        assert said in page
    assert ELSEWHERE in page
    for timed in ("Price per hour", "interleaved", "Threads"):
        assert timed not in page, "nothing was timed"
    kept = report_file.html(engine, engine.reports.get())
    assert "<dd>8.6, 8.9: it runs on these GPUs only</dd>" in kept
    assert "<dt>Threads</dt>" not in kept
    asked = f"model={model.name}&version={engine.version.number}&variant={engine.number}"
    for address in (engine.get_absolute_url(), engine.version.get_absolute_url()):
        assert escape(asked) in owner.browser.get(address).content.decode()
    choices = owner.browser.get("/deployments/new/").content.decode()
    original = choices.index(f'{model.name}/{engine.version.number}/0"')
    assert original < choices.index(f'{model.name}/{engine.version.number}/{engine.number}"'), (
        "served here first"
    )
    assert '<option value="fastapi" selected>' in choices
    chosen = owner.browser.get(f"/deployments/new/?{asked}").content.decode()
    assert '<option value="triton" selected>Triton, on a Kubernetes cluster only</option>' in chosen


def test_cancelling_a_job_ends_its_build_by_tensorrts_monitor_and_the_log_says_so(
    three, version_of, tmp_path
):
    toolchains.interpreter("tensorrt")
    owner, _, _ = three
    claim = jobs.running(owner.actor, version_of(owner.actor))
    job, hold = Job.objects.get(pk=claim.job_id), Hold(claim=claim)
    signature = onnx_models.mlp(tmp_path / "model.onnx")
    services.cancel_job(owner.actor, job)
    with pytest.raises(Cancelled):
        supervision.supervise(
            entry="optimizer.techniques.child:run",
            spec={
                "technique": "tensorrt",
                "params": {},
                "input_path": str(tmp_path / "model.onnx"),
                "output_path": str(tmp_path / "made.engine"),
                "signature": signature,
                "seed": 1,
            },
            readable=[tmp_path / "model.onnx"],
            wall_s=60,
            hold=hold,
            folder=tmp_path,
            toolchain="tensorrt",
            stop_grace_s=20,  # a busy machine starts a build late, which is where it is asked
        )
    with pytest.raises(Cancelled):
        hold.flush()
    assert "BuildCanceled (Build canceled by user" in history(job)[-1]
    assert not (tmp_path / "made.engine").exists()
