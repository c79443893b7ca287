"""Jobs, what happened in them, and the workers that run them.

The job row is the truth and the outbox; a Celery message only says "go and look at this id".
"""

from django.db import models
from django.db.models import Q

from controlplane.accounts.models import Team, TeamOwnedQuerySet, User
from controlplane.registry.models import Dataset, Variant, Version


class Search(models.Model):
    """A run of several recipes on one variant, one job after another, to choose from what they showed. The next job is
    derived from this row and its jobs, so whoever looks at them may go on."""

    class State(models.TextChoices):
        """The words of `optimizer.domain.search.SearchState`, with labels."""

        RUNNING = "running", "Running"
        SUCCEEDED = "succeeded", "Succeeded"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="searches")
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="searches")
    parent = models.ForeignKey(Variant, on_delete=models.CASCADE, related_name="+")
    plan = models.JSONField()
    """Recipes in order, with every default written out."""
    left_out = models.JSONField(default=list)
    """What was not planned: `recipe` in words and `reason`."""
    evaluation_set = models.ForeignKey(Dataset, on_delete=models.SET_NULL, null=True, related_name="+")
    calibration_set = models.ForeignKey(Dataset, on_delete=models.SET_NULL, null=True, related_name="+")
    gpu = models.CharField(max_length=10, blank=True, db_default="", default="")
    """The compute capability of the GPU that all is measured on; empty for the processors of the fleet."""
    max_jobs = models.PositiveIntegerField()
    max_minutes = models.PositiveIntegerField()
    idempotency_key = models.CharField(max_length=100, null=True)  # noqa: DJ001  NULLs do not collide
    request_digest = models.CharField(max_length=64, blank=True)
    state = models.CharField(max_length=12, choices=State, default=State.RUNNING)
    message = models.TextField(blank=True)
    """Why it ended, in one sentence for a person."""
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    objects = TeamOwnedQuerySet["Search"].as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["team", "idempotency_key"], name="search_key_in_team")]
        indexes = [
            models.Index(fields=["team", "-id"]),
            models.Index(fields=["id"], condition=Q(state="running"), name="search_running"),
        ]

    def __str__(self) -> str:
        return f"search {self.pk}"

    def get_absolute_url(self) -> str:
        return f"/searches/{self.pk}/"


class Job(models.Model):
    class State(models.TextChoices):
        """The words of `optimizer.domain.jobs.JobState`, with labels."""

        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        CANCELLING = "cancelling", "Cancelling"
        SUCCEEDED = "succeeded", "Succeeded"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    class Priority(models.IntegerChoices):
        """The levels of `optimizer.domain.line.Level`, with labels."""

        LOW = 1, "Low"
        NORMAL = 2, "Normal"
        HIGH = 3, "High"

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="jobs")
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="jobs")
    parent = models.ForeignKey(Variant, on_delete=models.CASCADE, related_name="jobs_from")
    """The variant that the recipe starts from and is measured against."""
    recipe = models.JSONField()
    """Empty where the job measures what is there."""
    measures = models.ForeignKey(Variant, on_delete=models.CASCADE, null=True, related_name="measured_by")
    """The variant that is measured again; null for a job that makes one."""
    evaluation_set = models.ForeignKey(Dataset, on_delete=models.SET_NULL, null=True, related_name="+")
    calibration_set = models.ForeignKey(Dataset, on_delete=models.SET_NULL, null=True, related_name="+")
    queue = models.CharField(max_length=60, default="optimize.cpu")
    priority = models.PositiveSmallIntegerField(choices=Priority, default=Priority.NORMAL, db_default=2)
    idempotency_key = models.CharField(max_length=100, null=True)  # noqa: DJ001  NULLs do not collide
    request_digest = models.CharField(max_length=64, blank=True)
    """Of the request that came with the key, so that another body under the same key is refused."""
    retry_of = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="retries")
    search = models.ForeignKey(Search, on_delete=models.CASCADE, null=True, related_name="jobs")
    search_index = models.PositiveIntegerField(null=True)
    """The recipe's place in the plan of its search."""

    state = models.CharField(max_length=12, choices=State, default=State.QUEUED)
    reason = models.CharField(max_length=30, blank=True)
    message = models.TextField(blank=True)
    """Why it ended, in one sentence for a person."""
    cancel_requested = models.BooleanField(default=False)
    attempt = models.PositiveIntegerField(default=0)
    max_attempts = models.PositiveIntegerField(default=3)
    fence = models.BigIntegerField(default=0)
    owner = models.CharField(max_length=200, blank=True)
    lease_until = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    run_after = models.DateTimeField()
    published_at = models.DateTimeField(null=True)
    publish_count = models.PositiveIntegerField(default=0)

    step = models.CharField(max_length=60, blank=True)
    step_index = models.PositiveIntegerField(default=0)
    step_count = models.PositiveIntegerField(default=0)
    progress_done = models.FloatField(default=0)
    progress_total = models.FloatField(default=0)

    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = TeamOwnedQuerySet["Job"].as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["team", "idempotency_key"], name="idempotency_key_in_team"),
            models.UniqueConstraint(fields=["search", "search_index"], name="job_once_in_search"),
        ]
        indexes = [
            models.Index(fields=["team", "-id"]),
            models.Index(fields=["version", "-id"]),
            models.Index(fields=["run_after"], condition=Q(state="queued"), name="job_queued"),
            models.Index(
                fields=["lease_until"], condition=Q(state__in=["running", "cancelling"]), name="job_leased"
            ),
        ]

    def __str__(self) -> str:
        return f"job {self.pk}"

    def get_absolute_url(self) -> str:
        return f"/jobs/{self.pk}/"

    @property
    def does(self) -> str:
        """Such as `onnx-graph + int8-static`, or `measure int8-static again`."""
        if self.measures is not None:
            return f"measure {self.measures.label} again"
        return " + ".join(step["technique"] for step in self.recipe)

    @property
    def priority_word(self) -> str:
        """As the API says it."""
        return self.Priority(self.priority).name.lower()

    @property
    def reason_in_words(self) -> str:
        return self.reason.replace("_", " ")


class JobEvent(models.Model):
    """One row per edge, step, progress mark and log line, in order of `id`: the job's page is made from it."""

    class Kind(models.TextChoices):
        STATE = "state", "State"
        STEP = "step", "Step"
        LOG = "log", "Log"

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="events")
    attempt = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=Kind)
    level = models.CharField(max_length=10, default="info")
    message = models.TextField()
    data = models.JSONField(default=dict)
    at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["job", "id"])]

    def __str__(self) -> str:
        return f"{self.kind}: {self.message[:60]}"


class Worker(models.Model):
    """A Celery worker as it announced itself. Shared by all teams, so pages show no job of another team."""

    name = models.CharField(max_length=200, unique=True)
    queues = models.JSONField(default=list)
    hardware = models.JSONField(default=dict)
    versions = models.JSONField(default=dict)
    load = models.JSONField(default=dict)
    current_job = models.ForeignKey(Job, on_delete=models.SET_NULL, null=True, related_name="+")
    draining = models.BooleanField(default=False)
    """Its process stops."""
    drain_since = models.DateTimeField(null=True)
    """Since when it shall take no new job, as an admin asked; null while it takes them. Kept until an admin resumes
    it, however often it reconnects or restarts."""
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return f"/workers/#worker-{self.pk}"
