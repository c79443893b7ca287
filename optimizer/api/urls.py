"""The optimizer's API addresses, below /api/v1/."""

from django.urls import path

from optimizer.api import views

urlpatterns = [
    path("models/<name:name>/ledger/", views.Ledger.as_view(), name="ledger"),
    path("models/<name:name>/ledger/rebuild/", views.LedgerRebuild.as_view(), name="ledger-rebuild"),
    path("jobs/", views.Jobs.as_view(), name="jobs"),
    path("jobs/<id:job>/", views.Job.as_view(), name="job"),
    path("jobs/<id:job>/cancel/", views.JobCancel.as_view(), name="job-cancel"),
    path("jobs/<id:job>/retry/", views.JobRetry.as_view(), name="job-retry"),
    path("jobs/<id:job>/events/", views.JobEvents.as_view(), name="job-events"),
    path(
        "models/<name:name>/versions/<id:number>/variants/<int:variant>/measure/",
        views.Measure.as_view(),
        name="measure",
    ),
    path("searches/", views.Searches.as_view(), name="searches"),
    path("searches/<id:search>/", views.Search.as_view(), name="search"),
    path("searches/<id:search>/cancel/", views.SearchCancel.as_view(), name="search-cancel"),
    path("techniques/", views.Techniques.as_view(), name="techniques"),
    path("workers/", views.Workers.as_view(), name="workers"),
    path("workers/<id:worker>/drain/", views.WorkerDrain.as_view(), name="worker-drain"),
    path("workers/<id:worker>/resume/", views.WorkerResume.as_view(), name="worker-resume"),
]
