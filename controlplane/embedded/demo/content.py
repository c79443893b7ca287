"""The demo's story, step by step. Each step finds out whether it was done before, so a second run goes on.

Register a pretrained classifier, optimize it two ways, look at the verdicts, roll the original out, then the
best variant, and put a bounded load on the endpoint. Prints what a person should look at.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controlplane.embedded.demo.client import Api, Refused
from controlplane.embedded.demo.labelled import labelled, model_folder, roots_at_hand

MODEL = "file-types"
DEPLOYMENT = "file-types"
DATASET = "files-at-hand"
RECIPES: dict[str, dict[str, Any]] = {
    # With the convolutions, dynamic INT8 is about 3x slower here: the demo shows a rejection, too. Nothing is repaired,
    # which would take items from the comparison.
    "int8-dynamic": {"op_types": ["MatMul", "Gemm", "Conv"], "repair_rounds": 0},
    "int8-static": {"calibration": "percentile", "repair_rounds": 0},
}
LOAD_PER_S = 20
LOAD_S = 15 * 60
OVER = {"succeeded", "failed", "cancelled"}

type Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Demo:
    api: Api
    project: Path
    say: Say

    def run(self) -> None:
        self._register()
        self._roll_out(variant=0)
        jobs = self._optimize()
        self._tell(jobs)
        best = self._best()
        if best is not None and self._promote(best):
            self._roll_out(variant=best["variant"])
        self._load()
        self.say(f"Look at {self.api.url}deployments/{DEPLOYMENT}/: the charts move while the load runs.")

    def _register(self) -> None:
        if not self._has(f"models/{MODEL}/"):
            self.api.post(
                "models/", {"name": MODEL, "description": "Magika's classifier of file types, pretrained."}
            )
        content = (model_folder() / "model.onnx").read_bytes()
        version = self.api.upload(f"models/{MODEL}/versions/upload/?filename=magika.onnx", content)
        self.say(
            f"Registered {MODEL} v{version['version']}: {version['summary']['parameters']:,} parameters."
        )
        if not self._has(f"models/{MODEL}/datasets/{DATASET}/"):
            inputs, labels = labelled(roots_at_hand(self.project))
            archive = io.BytesIO()
            arrays: dict[str, Any] = {version["signature"]["inputs"][0]["name"]: inputs, "labels": labels}
            np.savez_compressed(archive, allow_pickle=False, **arrays)
            self.api.upload(f"models/{MODEL}/datasets/{DATASET}/?role=evaluation", archive.getvalue())
            self.say(
                f"Made an evaluation set of {len(labels)} files of this machine, labelled by their suffix."
            )

    def _optimize(self) -> list[dict[str, Any]]:
        queued = [
            self.api.post(
                "jobs/",
                {
                    "model": MODEL,
                    "version": 1,
                    "recipe": [{"technique": technique, "params": params}],
                    "evaluation_set": DATASET,
                },
                Idempotency_Key=f"demo-{technique}",
            )
            for technique, params in RECIPES.items()
        ]
        self.say(f"Queued {len(queued)} jobs; each is measured against the original on this machine.")
        return [self.api.wait(f"jobs/{job['id']}/", lambda seen: seen["state"] in OVER) for job in queued]

    def _tell(self, jobs: list[dict[str, Any]]) -> None:
        for job in jobs:
            self.say(f"{job['recipe'][0]['technique']}: {job['message']}")

    def _best(self) -> dict[str, Any] | None:
        """The variant with the verdict "better" whose measured gain is largest; None if none is."""
        variants: list[dict[str, Any]] = self.api.get(f"models/{MODEL}/versions/1/variants/")["items"]
        better = [variant for variant in variants if variant["verdict"] == "better"]
        if not better:
            self.say("No variant was shown to be better, so the original stays.")
            return None
        gains = {variant["variant"]: self._gain(variant["variant"]) for variant in better}
        return max(better, key=lambda variant: gains[variant["variant"]])

    def _gain(self, variant: int) -> float:
        report = self.api.get(f"models/{MODEL}/versions/1/variants/{variant}/report/")["report"]
        return max(float(timing["speedup"]["value"]) for timing in report["timings"])

    def _promote(self, variant: dict[str, Any]) -> bool:
        """False where somebody changed the model's gate since, and it does not let this variant pass."""
        try:
            self.api.put(f"models/{MODEL}/aliases/champion/", {"version": 1, "variant": variant["variant"]})
        except Refused as refusal:
            if refusal.code != "gate_failed":
                raise
            self.say(f"“champion” stays where it is: {refusal}")
            return False
        self.say(f"“champion” now points to {variant['technique']}.")
        return True

    def _roll_out(self, *, variant: int) -> None:
        if not self._has(f"deployments/{DEPLOYMENT}/"):
            self.api.post("deployments/", {"name": DEPLOYMENT})
        revision = self._revision(variant)
        live = self._at_rest()
        if live["revision"] is not None and live["revision"] >= revision:
            return
        ended = self._ended(self._begin(revision)["id"])
        address = self.api.get(f"deployments/{DEPLOYMENT}/")["address"]
        self.say(f"{ended['message']} Endpoint: {address}/v2/models/{MODEL}/infer")

    def _at_rest(self) -> dict[str, Any]:
        """The deployment. A run that was stopped may have left a rollout under way, whose end is waited for."""
        path = f"deployments/{DEPLOYMENT}/"
        found: dict[str, Any] = self.api.get(path)
        if found["rollout"] is None:
            return found
        self._ended(found["rollout"])
        return dict(self.api.get(path))

    def _begin(self, revision: int, *, again: bool = True) -> dict[str, Any]:
        """A rollout on the plan as it is now, which may move once before it is applied."""
        plan = self.api.get(f"deployments/{DEPLOYMENT}/revisions/{revision}/plan/")
        try:
            wanted = {"revision": revision}
            return dict(self.api.post(f"deployments/{DEPLOYMENT}/rollouts/", wanted, If_Match=plan["etag"]))
        except Refused as refused:
            if not again or refused.code != "live_state_moved":
                raise
        return self._begin(revision, again=False)

    def _ended(self, rollout: int) -> dict[str, Any]:
        path = f"deployments/{DEPLOYMENT}/rollouts/{rollout}/"
        return dict(self.api.wait(path, lambda seen: seen["finished_at"] is not None, within_s=120))

    def _revision(self, variant: int) -> int:
        """The revision with this variant, added if there is none."""
        for known in self.api.get(f"deployments/{DEPLOYMENT}/revisions/")["items"]:
            if known["variant"] == variant:
                return int(known["revision"])
        wanted = {"model": MODEL, "version": 1, "variant": variant, "spec": {}}
        return int(self.api.post(f"deployments/{DEPLOYMENT}/revisions/", wanted)["revision"])

    def _load(self) -> None:
        self.api.put(f"deployments/{DEPLOYMENT}/load/", {"rate_per_s": LOAD_PER_S, "duration_s": LOAD_S})
        self.say(
            f"{LOAD_PER_S} requests/s for {LOAD_S // 60} minutes; raise or stop it on the deployment's page."
        )

    def _has(self, path: str) -> bool:
        try:
            self.api.get(path)
        except Refused as refused:
            if refused.code == "not_found":
                return False
            raise
        return True
