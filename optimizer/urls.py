"""Page addresses of jobs, searches and workers."""

from django.urls import path

from optimizer import search_views, views

app_name = "optimizer"

urlpatterns = [
    path("models/<name:name>/ledger/", views.ledger, name="ledger"),
    path("models/<name:name>/ledger/rebuild/", views.rebuild, name="rebuild"),
    path("jobs/", views.jobs, name="jobs"),
    path("jobs/new/", views.new_job, name="new-job"),
    path("jobs/<id:job>/", views.job, name="job"),
    path("jobs/<id:job>/log.txt", views.job_log, name="job-log"),
    path("jobs/<id:job>/cancel/", views.cancel, name="cancel-job"),
    path("jobs/<id:job>/retry/", views.retry, name="retry-job"),
    path(
        "models/<name:name>/versions/<id:number>/variants/<int:variant>/measure/",
        views.measure,
        name="measure",
    ),
    path("searches/", search_views.searches, name="searches"),
    path("searches/new/", search_views.new_search, name="new-search"),
    path("searches/<id:search>/", search_views.search, name="search"),
    path("searches/<id:search>/cancel/", search_views.cancel, name="cancel-search"),
    path("workers/", views.workers, name="workers"),
    path("workers/<id:worker>/drain/", views.drain, name="drain-worker"),
    path("workers/<id:worker>/resume/", views.resume, name="resume-worker"),
]
