"""What a signature tells of a model's answers, and who may state something else."""

from typing import Any

import pytest

from controlplane.accounts.models import AuditEvent
from controlplane.registry.answers import Answers
from tests import factories
from tests.controlplane.registry.people import code
from tests.optimizer.onnx_models import signature

TOKENS = [("input_ids", "INT64", ["n", "s"]), ("attention_mask", "INT64", ["n", "s"])]
PIXELS = [("x", "FP32", ["n", 3, 32, 32])]


@pytest.mark.parametrize(
    ("inputs", "outputs", "found"),
    [
        (
            TOKENS,
            [("last_hidden_state", "FP32", ["n", "s", 384])],
            ("embedding", "last_hidden_state", "mean"),
        ),
        (
            TOKENS,
            [("h", "FP32", ["n", "s", 384]), ("sentence_embedding", "FP32", ["n", 384])],
            ("embedding", "sentence_embedding", "none"),
        ),
        (TOKENS, [("logits", "FP32", ["n", "s", 9])], ("other", "", "none")),
        (TOKENS, [("logits", "FP32", ["n", 3])], ("classification", "", "none")),
        (TOKENS, [("logits", "FP32", ["n", 1])], ("regression", "", "none")),
        (PIXELS, [("probabilities", "FP32", ["n", 10])], ("classification", "", "none")),
        (PIXELS, [("variable", "FP32", ["n", 1])], ("regression", "", "none")),
        (PIXELS, [("y", "FP32", ["n", 10])], ("other", "", "none")),
        (PIXELS, [("text", "BYTES", ["n", 1])], ("transcription", "", "none")),
        (PIXELS, [("ids", "INT64", ["n", "length"])], ("transcription", "", "none")),
    ],
)
def test_a_signature_tells_the_task_and_what_of_it_counts(
    inputs: Any, outputs: Any, found: tuple[str, ...]
) -> None:
    settled = Answers().settled(signature(inputs, outputs))
    assert (settled.task, settled.output, settled.pooling) == found


def test_what_was_stated_beats_what_a_signature_tells() -> None:
    given = signature(TOKENS, [("logits", "FP32", ["n", 3]), ("h", "FP32", ["n", "s", 8])])
    assert Answers(task="regression").settled(given).task == "regression"
    other = Answers(output="h").settled(given)
    assert (other.task, other.output, other.pooling) == ("embedding", "h", "mean")
    assert Answers(task="embedding", output="h", pooling="none").settled(given).pooling == "none"
    assert Answers(output="of another version").settled(given) == Answers(output="").settled(given)


def test_a_mask_is_known_by_its_axes() -> None:
    two = [("encoder_mask", "INT64", ["n", "long"]), ("attention_mask", "INT64", ["n", "short"])]
    given = signature(two, [("h", "FP32", ["n", "long", 8])])
    assert "positions that “encoder_mask” leaves out" in " ".join(Answers().in_words(given))
    named_by_an_exporter = signature(TOKENS, [("h", "FP32", ["n", "unk_7", 8])])
    assert Answers().settled(named_by_an_exporter).pooling == "mean"


@pytest.mark.django_db
def test_the_task_is_stated_by_engineers_of_the_team_and_audited(three):
    owner, viewer, stranger = three
    model = factories.model(owner.actor.team)
    address, page = f"models/{model.name}/answers/", f"/models/{model.name}/answers/"
    assert viewer.api("GET", address).json()["settled"] is None
    assert code(owner.api("PUT", address, {"task": "regression"})) == (409, "no_version")
    factories.version(model)
    assert viewer.api("GET", address).json() == {
        "task": None,
        "output": None,
        "pooling": None,
        "settled": {"task": "other", "output": None, "pooling": "none"},
    }
    stated = owner.api("PUT", address, {"task": "embedding", "output": "y"}).json()
    assert stated["settled"] == {"task": "embedding", "output": "y", "pooling": "none"}
    assert code(owner.api("PUT", address, {"task": "embedding", "output": "z"})) == (422, "unknown_output")
    assert code(viewer.api("PUT", address, {"task": None})) == (403, "role_too_low")
    assert code(stranger.api("PUT", address, {"task": None})) == (404, "not_found")
    assert "Compared: “y”" in owner.browser.get(f"/models/{model.name}/").content.decode()
    assert viewer.browser.get(page).status_code == 403
    form = {"task": "regression", "output": "", "pooling": "mean"}
    assert owner.browser.post(page, form).status_code == 302
    model.refresh_from_db()
    assert Answers.from_json(model.answers) == Answers(task="regression", pooling="mean")
    assert owner.browser.post(page, form | {"task": "guessing"}).status_code == 400
    event = AuditEvent.objects.filter(verb__startswith="changed the comparison").first()
    assert event is not None
    assert event.details["to"] == model.answers
