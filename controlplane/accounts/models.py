"""Who acts, on whose behalf, and what they did.

A team owns every object and is the border of access. An API token belongs to one user in one team and can
never do more than its user's role there.
"""

from datetime import timedelta
from typing import Any, Self

from django.contrib.auth.models import AbstractUser
from django.db import models
from knox.models import AbstractAuthToken, AuthTokenManager


class User(AbstractUser):
    """A person. Custom from the first migration, because it cannot be made so later."""


class Role(models.TextChoices):
    VIEWER = "viewer", "Viewer"
    ENGINEER = "engineer", "Engineer"
    ADMIN = "admin", "Admin"

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    def covers(self, needed: "Role") -> bool:
        return self.rank >= needed.rank


class Team(models.Model):
    name = models.CharField(max_length=63, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    members = models.ManyToManyField(User, through="Membership", related_name="teams")

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role)
    joined_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "user"], name="one_membership_per_user_and_team")
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.team} as {self.role}"


class ApiTokenManager(AuthTokenManager, models.Manager["ApiToken"]):  # type: ignore[misc]
    def issue(self, *, expiry: timedelta, **fields: Any) -> tuple["ApiToken", str]:
        """The row and the token's text, which nothing keeps."""
        token, text = super().create(expiry=expiry, **fields)
        return token, str(text)


class ApiToken(AbstractAuthToken, models.Model):  # type: ignore[misc]
    """knox keeps the digest; the token itself is shown once."""

    name = models.CharField(max_length=100)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="tokens")
    role = models.CharField(max_length=10, choices=Role)
    last_used_at = models.DateTimeField(null=True)

    objects = ApiTokenManager()

    def __str__(self) -> str:
        """knox's own shows the digest."""
        return self.name


class TeamOwnedQuerySet[Row: models.Model](models.QuerySet[Row]):
    """The border of access: pages and API start from `in_team`, so a stranger's object is simply not there."""

    team_path = "team"

    def in_team(self, team: Team | int) -> Self:
        return self.filter(**{self.team_path: team})


class AuditEvent(models.Model):
    """One mutation by a person or by Slipway itself (`user` empty). Written in the mutation's transaction."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="audit_events")
    user = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True)
    via = models.CharField(max_length=10, choices=[("page", "page"), ("api", "API"), ("system", "Slipway")])
    verb = models.CharField(max_length=60)
    object_type = models.CharField(max_length=30)
    object_id = models.BigIntegerField()
    object_name = models.CharField(max_length=200)
    object_url = models.CharField(max_length=300, blank=True)
    details = models.JSONField(default=dict)
    at = models.DateTimeField(auto_now_add=True)

    objects = TeamOwnedQuerySet["AuditEvent"].as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["team", "-id"]),
            models.Index(fields=["team", "object_type", "object_id", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.user or 'Slipway'} {self.verb} {self.object_name}"
