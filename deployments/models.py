"""Deployments, their immutable revisions, the rollouts between them, and what the autoscaler decided.

`Deployment.generation` only grows and fences every write to the target. The deployment row is also the
outbox of its reconciler: a row whose `reconcile_after` is due is published by the dispatcher.
"""

from django.db import models
from django.db.models import Q

from controlplane.accounts.models import Team, TeamOwnedQuerySet, User
from controlplane.registry.models import Variant
from deployments.domain.origin import Origin

CLUSTER = "kubernetes"
"""The kind of target that is one."""


class Target(models.Model):
    """Where replicas run. `kind` is a key of the plug-in table in `deployments.targets`."""

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="targets")
    name = models.CharField(max_length=63)
    kind = models.CharField(max_length=30)
    settings = models.JSONField(default=dict)
    """What its plug-in is opened with; for a cluster see `targets.kubernetes.opening`."""
    secret = models.BinaryField(default=bytes)
    """Sealed (see `core.sealing`): for a cluster the kubeconfig."""
    created_at = models.DateTimeField(auto_now_add=True)

    objects = TeamOwnedQuerySet["Target"].as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["team", "name"], name="target_name_in_team")]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return f"/targets/{self.name}/"

    @property
    def is_cluster(self) -> bool:
        return self.kind == CLUSTER


class Deployment(models.Model):
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="deployments")
    name = models.CharField(max_length=63)
    target = models.ForeignKey(Target, on_delete=models.PROTECT, related_name="deployments")
    live_revision = models.ForeignKey("Revision", on_delete=models.PROTECT, null=True, related_name="+")
    """The revision that serves; moved when a rollout succeeds."""
    revision_count = models.PositiveIntegerField(default=0)
    generation = models.BigIntegerField(default=0)
    replicas = models.PositiveIntegerField(default=1)
    """Wanted number, written by the autoscaler or by a person."""
    autoscaling_paused = models.BooleanField(default=False)
    hpa_state = models.JSONField(default=dict)
    api_key_sha256 = models.CharField(max_length=64, blank=True)
    removing = models.BooleanField(default=False)
    observed = models.JSONField(default=dict)
    """The last `TargetStatus` that was seen, as JSON; its age is `observed_at`."""
    observed_at = models.DateTimeField(null=True)
    unreachable_since = models.DateTimeField(null=True)
    reconcile_after = models.DateTimeField(null=True)
    published_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = TeamOwnedQuerySet["Deployment"].as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["team", "name"], name="deployment_name_in_team")]
        indexes = [models.Index(fields=["reconcile_after"])]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return f"/deployments/{self.name}/"

    @property
    def key(self) -> str:
        """Its name on the target: no user text decides it."""
        return f"d{self.pk}"

    @property
    def api_key_seen(self) -> str:
        """Names the endpoint's present key without telling it; empty without one."""
        return self.api_key_sha256[:8]


class ImportedFrom(models.Model):
    """The Deployment of a cluster that others made and that a deployment was imported from; see `domain.origin`."""

    class State(models.TextChoices):
        """The words of `domain.origin.Stage`, with labels."""

        READ_ONLY = "read_only", "Read-only"
        DIVERTING = "diverting", "Leading its callers here"
        DRAINING = "draining", "Draining its replicas"
        TAKEN = "taken", "Taken over"
        RETURNING = "returning", "Bringing its replicas back"
        LEAVING = "leaving", "Draining Slipway's replicas"

    deployment = models.OneToOneField(Deployment, on_delete=models.CASCADE, related_name="imported_from")
    name = models.CharField(max_length=253)
    state = models.CharField(max_length=10, choices=State, default=State.READ_ONLY)
    moved_at = models.DateTimeField()
    """When it came to its state."""
    note = models.TextField(blank=True)
    """Why it came there, where it was not asked to."""
    origin = models.JSONField()
    """`domain.origin.Origin`"""

    def __str__(self) -> str:
        return self.name

    @property
    def value(self) -> Origin:
        return Origin.from_json(self.origin)


class RevisionQuerySet(TeamOwnedQuerySet["Revision"]):
    team_path = "deployment__team"


class Revision(models.Model):
    """Immutable: variant, stack, batching, resources, autoscaling, rollout settings. See `domain.spec`."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    variant = models.ForeignKey(Variant, on_delete=models.PROTECT, related_name="revisions")
    spec = models.JSONField()
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = RevisionQuerySet.as_manager()

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["deployment", "number"], name="revision_number_in_deployment")
        ]

    def __str__(self) -> str:
        return f"revision {self.number}"


class RolloutQuerySet(TeamOwnedQuerySet["Rollout"]):
    team_path = "deployment__team"


class Rollout(models.Model):
    class State(models.TextChoices):
        """The words of `domain.rollouts.RolloutState`, with labels."""

        PENDING = "pending", "Pending"
        RUNNING = "running", "Running"
        PAUSED = "paused", "Paused"
        ROLLING_BACK = "rolling_back", "Rolling back"
        SUCCEEDED = "succeeded", "Succeeded"
        ROLLED_BACK = "rolled_back", "Rolled back"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="rollouts")
    from_revision = models.ForeignKey(Revision, on_delete=models.CASCADE, null=True, related_name="+")
    to_revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="rollouts")
    kind = models.CharField(
        max_length=10, choices=[("update", "Update"), ("rollback", "Rollback")], default="update"
    )
    state = models.CharField(max_length=14, choices=State, default=State.PENDING)
    message = models.TextField(blank=True)
    plan = models.JSONField(default=list)
    """The diff that was shown and applied."""
    evidence = models.JSONField(default=dict)
    """Kept when it failed: replica reasons and their last log lines."""
    step = models.JSONField(default=dict)
    """`domain.strategy.StepState`: at which step it is, and since when; `share` in words besides."""
    progressed_at = models.DateTimeField()
    """When a replica last became ready; the progress deadline counts from it."""
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    objects = RolloutQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["deployment"],
                condition=Q(state__in=["pending", "running", "paused", "rolling_back"]),
                name="one_active_rollout_per_deployment",
            )
        ]

    def __str__(self) -> str:
        return f"rollout {self.pk}"


class RolloutEvent(models.Model):
    """One row per edge and per thing that moved: the rollout's timeline."""

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=20)
    message = models.TextField()
    data = models.JSONField(default=dict)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.message[:60]


class Decision(models.Model):
    """What the autoscaler decided. Equal decisions in a row are one row: `at` to `last_at`, `repeats` times."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="decisions")
    at = models.DateTimeField()
    last_at = models.DateTimeField()
    repeats = models.PositiveIntegerField(default=1)
    current_replicas = models.PositiveIntegerField()
    desired_replicas = models.PositiveIntegerField()
    raw_recommendation = models.PositiveIntegerField(null=True)
    limited_by = models.CharField(max_length=30)
    signals = models.JSONField()
    """name -> {value, age_s, error, target, recommendation}"""
    conditions = models.JSONField(default=dict)
    sentence = models.TextField()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["deployment", "-id"]), models.Index(fields=["deployment", "at"])]

    def __str__(self) -> str:
        return self.sentence[:60]


class ReplicaLife(models.Model):
    """When one replica passed the phases of its start; kept after it is gone. See `lives`."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="lives")
    name = models.CharField(max_length=253)
    revision = models.PositiveIntegerField()
    node = models.CharField(max_length=253, blank=True)
    began_at = models.DateTimeField()
    phases = models.JSONField(default=dict)
    """name -> moment: created, scheduled, pulled, fetched, started, ready"""
    gone_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-began_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["deployment", "name", "began_at"], name="one_life_per_replica_and_start"
            )
        ]
        indexes = [models.Index(fields=["deployment", "-began_at"], name="life_by_start")]

    def __str__(self) -> str:
        return self.name


class Rollup(models.Model):
    """One time window of one deployment (`replica` empty) or one of its replicas. See `telemetry.rollup`."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="+", db_index=False)
    resolution_s = models.PositiveIntegerField()
    ts = models.DateTimeField()
    revision = models.PositiveIntegerField(default=0)
    """0 where the window covers every revision."""
    replica = models.CharField(max_length=80, blank=True)
    data = models.JSONField()
    """Counts and means, as `telemetry.rollup.Window` names them."""
    sketch = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["deployment", "resolution_s", "ts", "revision", "replica"],
                name="one_rollup_per_window",
            )
        ]
        indexes = [models.Index(fields=["resolution_s", "ts"], name="rollup_by_age")]

    def __str__(self) -> str:
        return f"{self.deployment_id} {self.ts} {self.resolution_s}s"


class Load(models.Model):
    """Bounded traffic that a person asked for on their own endpoint, so that the charts have something to show.

    `manage.py load` sends it; `until` ends it whatever happens to that process.
    """

    deployment = models.OneToOneField(Deployment, on_delete=models.CASCADE, related_name="load")
    rate_per_s = models.FloatField()
    until = models.DateTimeField()
    sent = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    started_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.rate_per_s:g}/s until {self.until}"
