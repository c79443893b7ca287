"""What is registered: models, their immutable versions, what was derived from them, and the evidence.

    Team --< Model --< Version --< Variant >-- Artifact
                |         |           |
                |         |           +--< Report (variant against its parent)
                |         +-- `source_sha256`: the bytes the user sent
                +--< Alias -> Variant        +--< Dataset (evaluation or calibration)

Every version has one variant of its own bytes (technique ""), so "what is served" is always a variant.
Jobs live in `optimizer`, which this app may not import; a variant keeps its job's id as a number.
"""

from django.db import models

from controlplane.accounts.models import Team, TeamOwnedQuerySet, User
from controlplane.registry import formats, serving
from controlplane.registry.engines import Engine
from controlplane.registry.metrics import METRICS


class Model(models.Model):
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="models")
    name = models.CharField(max_length=63)
    description = models.TextField(max_length=2000, blank=True)
    gate = models.JSONField(default=dict)
    """What is asked of a variant; see `registry.gate`. Empty: its defaults."""
    answers = models.JSONField(default=dict)
    """How two answers of it are compared, as far as somebody stated it; see `registry.answers`."""
    version_count = models.PositiveIntegerField(default=0)
    """The number given to the latest version; numbers are never used again, also after deletion."""
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = TeamOwnedQuerySet["Model"].as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["team", "name"], name="model_name_in_team")]
        indexes = [models.Index(fields=["team", "-id"])]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return f"/models/{self.name}/"


class Artifact(models.Model):
    """Stored bytes, named by their digest and shared by all that have them. Never shown across teams."""

    class State(models.TextChoices):
        PRESENT = "present", "Present"
        DAMAGED = "damaged", "Damaged"

    sha256 = models.CharField(max_length=64, unique=True)
    size_bytes = models.BigIntegerField()
    state = models.CharField(max_length=10, choices=State, default=State.PRESENT)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.sha256[:12]


class VersionQuerySet(TeamOwnedQuerySet["Version"]):
    team_path = "model__team"


class Version(models.Model):
    """Immutable. `number` counts up within its model."""

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    source_filename = models.CharField(max_length=255, blank=True)
    source_sha256 = models.CharField(max_length=64)
    source_bytes = models.BigIntegerField()
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="versions")
    format = models.CharField(max_length=20, default="onnx")
    signature = models.JSONField()
    summary = models.JSONField(default=dict)
    quarantined_reason = models.CharField(max_length=200, blank=True)
    """Set when building from it crashed at its cap: it is not used again until a person says so."""
    trusted_at = models.DateTimeField(null=True)
    """Since when its code may run in jobs, for formats that are code; see `trust`."""
    trusted_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = VersionQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["model", "number"], name="version_number_in_model")]

    def __str__(self) -> str:
        return f"{self.model.name} v{self.number}"

    def get_absolute_url(self) -> str:
        return f"/models/{self.model.name}/versions/{self.number}/"

    @property
    def format_label(self) -> str:
        return formats.label(self.format)

    @property
    def format_with_article(self) -> str:
        return formats.with_article(self.format)

    @property
    def must_be_trusted(self) -> bool:
        return self.format in formats.RUN_CODE and self.trusted_at is None

    @property
    def must_be_exported(self) -> bool:
        """No stack serves its own bytes; see `registry.formats`."""
        return self.format in formats.MUST_BE_EXPORTED


class VariantQuerySet(TeamOwnedQuerySet["Variant"]):
    team_path = "version__model__team"


class Verdict(models.TextChoices):
    """The words of `optimizer.domain.verdict`; here because a variant carries one."""

    BETTER = "better", "Better"
    FASTER_BUT_INACCURATE = "faster_but_inaccurate", "Faster but inaccurate"
    NOT_FASTER = "not_faster", "Not faster"
    INCONCLUSIVE = "inconclusive", "Inconclusive"
    NOT_MEASURED = "not_measured", "Not measured"
    FAILED = "failed", "Failed"


class Variant(models.Model):
    """A servable artifact: the version's own bytes, or what a recipe made of them.

    `number` counts within the version; 0 is the version's own bytes.
    """

    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="variants")
    number = models.PositiveIntegerField(default=0)
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="children")
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="variants")
    technique = models.CharField(max_length=60, blank=True)
    """Keys of the recipe's techniques joined by "+"; empty for the version's own bytes."""
    precision = models.CharField(max_length=20, default="fp32")
    format = models.CharField(max_length=20, default="onnx")
    signature = models.JSONField()
    provenance = models.JSONField(default=dict)
    job_id = models.BigIntegerField(null=True, unique=True)
    """Unique: a job takes effect once, whatever is delivered twice."""
    verdict = models.CharField(max_length=30, choices=Verdict, blank=True)
    """That of the newest report."""
    created_at = models.DateTimeField(auto_now_add=True)

    objects = VariantQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["version", "number"], name="variant_number_in_version")
        ]

    def __str__(self) -> str:
        return f"{self.version} {self.label}"

    def get_absolute_url(self) -> str:
        return f"{self.version.get_absolute_url()}variants/{self.number}/"

    @property
    def label(self) -> str:
        return self.technique or "original"

    @property
    def not_served(self) -> str:
        """Why no deployment can serve it, as sentences; empty where one can."""
        return serving.why_not(self.format)

    @property
    def served_elsewhere(self) -> str:
        """Where it can be served, if not on this machine, as a sentence; empty for what can be, or nowhere."""
        said = serving.only_elsewhere(self.format)
        engine = Engine.of(self.provenance) if said else None
        if engine is not None:
            said += f" of compute capability {' or '.join(engine.capabilities)}"
        return said and f"{said}."


class Report(models.Model):
    """Evidence: one paired measurement of a variant against its parent. See `optimizer.evaluation.report`."""

    variant = models.ForeignKey(Variant, on_delete=models.CASCADE, related_name="reports")
    job_id = models.BigIntegerField(null=True, unique=True)
    """The job that measured: the one that made the variant, or one that measured it again."""
    verdict = models.CharField(max_length=30, choices=Verdict)
    sentence = models.TextField()
    data = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.variant}: {self.verdict}"


class AliasQuerySet(TeamOwnedQuerySet["Alias"]):
    team_path = "model__team"


class Alias(models.Model):
    """A movable pointer such as `champion`. Moving it is a guarded, audited write."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="aliases")
    name = models.CharField(max_length=63)
    variant = models.ForeignKey(Variant, on_delete=models.PROTECT, related_name="aliases")
    moved_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    moved_at = models.DateTimeField(auto_now=True)

    objects = AliasQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["model", "name"], name="alias_name_in_model")]

    def __str__(self) -> str:
        return self.name


class ImportQuerySet(TeamOwnedQuerySet["Import"]):
    team_path = "model__team"


class Import(models.Model):
    """A version that is fetched from a registry elsewhere. The row is the truth and the queue; see `imports`."""

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        SUCCEEDED = "succeeded", "Succeeded"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="imports")
    reference = models.CharField(max_length=500)
    revision = models.CharField(max_length=100, blank=True)
    """What the reference was pinned to by the first look at it; empty before."""
    state = models.CharField(max_length=12, choices=State, default=State.QUEUED)
    code = models.CharField(max_length=60, blank=True)
    """Of the error that ended it."""
    message = models.TextField(blank=True)
    """Why it ended, or why it waits, in sentences for a person."""
    version = models.ForeignKey(Version, on_delete=models.SET_NULL, null=True, related_name="imports")
    done_bytes = models.BigIntegerField(default=0)
    total_bytes = models.BigIntegerField(null=True)
    attempt = models.PositiveIntegerField(default=0)
    fence = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    run_after = models.DateTimeField()
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    objects = ImportQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["model", "-id"]),
            models.Index(
                fields=["run_after"],
                condition=models.Q(state__in=["queued", "running"]),
                name="import_active",
            ),
        ]

    def __str__(self) -> str:
        return f"import of {self.reference}"

    @property
    def is_active(self) -> bool:
        return self.state in {self.State.QUEUED, self.State.RUNNING}


class DatasetQuerySet(TeamOwnedQuerySet["Dataset"]):
    team_path = "model__team"


class Dataset(models.Model):
    """An npz of inputs (and labels) that fits a model's signature; what came as a table was made into one."""

    class Role(models.TextChoices):
        EVALUATION = "evaluation", "Evaluation set"
        CALIBRATION = "calibration", "Calibration set"

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=63)
    role = models.CharField(max_length=12, choices=Role)
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="datasets")
    items = models.PositiveIntegerField()
    has_labels = models.BooleanField(default=False)
    metric = models.CharField(max_length=20, blank=True)
    """What answers are scored by, a key of `registry.metrics`; empty without labels."""
    summary = models.JSONField(default=dict)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = DatasetQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["model", "name"], name="dataset_name_in_model")]

    def __str__(self) -> str:
        return self.name

    @property
    def metric_label(self) -> str:
        return METRICS.rows()[self.metric].label if self.metric in METRICS else ""
