"""The deployments' API addresses, below /api/v1/."""

from django.urls import path

from deployments.api import targets, views

ONE = "deployments/<name:name>/"
TARGET = "targets/<name:name>/"

urlpatterns = [
    path("targets/", targets.Targets.as_view(), name="targets"),
    path(TARGET, targets.Target.as_view(), name="target"),
    path(TARGET + "connection/", targets.TargetConnection.as_view(), name="target-connection"),
    path(TARGET + "rights/", targets.TargetRights.as_view(), name="target-rights"),
    path(TARGET + "metrics-api/", targets.TargetMetricsApi.as_view(), name="target-metrics-api"),
    path(TARGET + "imports/", targets.TargetImports.as_view(), name="target-imports"),
    path("deployments/", views.Deployments.as_view(), name="deployments"),
    path(ONE, views.Deployment.as_view(), name="deployment"),
    path(ONE + "revisions/", views.Revisions.as_view(), name="revisions"),
    path(ONE + "revisions/<id:number>/", views.Revision.as_view(), name="revision"),
    path(ONE + "revisions/<id:number>/plan/", views.Plan.as_view(), name="plan"),
    path(ONE + "revisions/<id:number>/manifests/", views.Manifests.as_view(), name="manifests"),
    path(ONE + "rollouts/", views.Rollouts.as_view(), name="rollouts"),
    path(ONE + "rollouts/<id:rollout>/", views.Rollout.as_view(), name="rollout"),
    path(ONE + "rollouts/<id:rollout>/cancel/", views.RolloutCancel.as_view(), name="rollout-cancel"),
    path(ONE + "rollouts/<id:rollout>/pause/", views.RolloutPause.as_view(), name="rollout-pause"),
    path(ONE + "rollouts/<id:rollout>/resume/", views.RolloutResume.as_view(), name="rollout-resume"),
    path(ONE + "rollouts/<id:rollout>/promote/", views.RolloutPromote.as_view(), name="rollout-promote"),
    path(ONE + "rollback/", views.Rollback.as_view(), name="rollback"),
    path(ONE + "key/", views.Key.as_view(), name="key"),
    path(ONE + "drift/", views.Drift.as_view(), name="drift"),
    path(ONE + "drift/put-back/", views.PutBack.as_view(), name="drift-put-back"),
    path(ONE + "give-back/", views.GiveBack.as_view(), name="give-back"),
    path(ONE + "scale/", views.Scale.as_view(), name="scale"),
    path(ONE + "autoscaling/", views.Autoscaling.as_view(), name="autoscaling"),
    path(ONE + "replicas/", views.Replicas.as_view(), name="replicas"),
    path(ONE + "replicas/<str:replica>/log/", views.ReplicaLog.as_view(), name="replica-log"),
    path(ONE + "series/", views.Series.as_view(), name="series"),
    path(ONE + "load/", views.Load.as_view(), name="load"),
    path(ONE + "why/", views.Why.as_view(), name="why"),
    path(ONE + "decisions/", views.Decisions.as_view(), name="decisions"),
]
