"""Page addresses, below /deployments/."""

from django.urls import path

from deployments.views import drift, imports, lists, logs, overview, revisions, rollouts, scaling, settings

app_name = "deployments"
ONE = "<name:name>/"

urlpatterns = [
    path("", lists.deployments, name="deployments"),
    path("new/", lists.new, name="new"),
    path(ONE, overview.overview, name="deployment"),
    path(ONE + "series.csv", overview.series_csv, name="series-csv"),
    path(ONE + "load/", overview.start_load, name="load"),
    path(ONE + "load/raise/", overview.raise_load, name="load-raise"),
    path(ONE + "load/stop/", overview.stop_load, name="load-stop"),
    path(ONE + "load/keep/", overview.keep_load, name="load-keep"),
    path(ONE + "rollouts/", rollouts.rollouts, name="rollouts"),
    path(ONE + "rollouts/<id:rollout>/", rollouts.rollout, name="rollout"),
    path(ONE + "rollouts/<id:rollout>/cancel/", rollouts.cancel, name="rollout-cancel"),
    path(ONE + "rollouts/<id:rollout>/pause/", rollouts.pause, name="rollout-pause"),
    path(ONE + "rollouts/<id:rollout>/resume/", rollouts.resume, name="rollout-resume"),
    path(ONE + "rollouts/<id:rollout>/promote/", rollouts.promote, name="rollout-promote"),
    path(ONE + "revisions/", revisions.revisions, name="revisions"),
    path(ONE + "revisions/<id:number>/plan/", revisions.plan, name="plan"),
    path(ONE + "scaling/", scaling.scaling, name="scaling"),
    path(ONE + "scaling/scale/", scaling.scale, name="scale"),
    path(ONE + "scaling/pause/", scaling.pause, name="pause"),
    path(ONE + "drift/", drift.drift, name="drift"),
    path(ONE + "drift/put-back/", drift.put_back, name="drift-put-back"),
    path(ONE + "drift/take-over/", drift.take_over, name="drift-take-over"),
    path(ONE + "logs/", logs.logs, name="logs"),
    path(ONE + "logs/lines/", logs.lines, name="log-lines"),
    path(ONE + "logs/text/", logs.text, name="log-text"),
    path(ONE + "settings/", settings.settings, name="settings"),
    path(ONE + "settings/key/", settings.rotate_key, name="key"),
    path(ONE + "settings/key/remove/", settings.remove_key, name="key-remove"),
    path(ONE + "settings/give-back/", imports.give_back, name="give-back"),
    path(ONE + "settings/remove/", settings.remove, name="remove"),
]
