"""The optimizer's API addresses, below /api/v1/."""

from django.urls import path

from optimizer.api import views

urlpatterns = [
    path("jobs/", views.Jobs.as_view(), name="jobs"),
    path("jobs/<id:job>/", views.Job.as_view(), name="job"),
    path("jobs/<id:job>/cancel/", views.JobCancel.as_view(), name="job-cancel"),
    path("jobs/<id:job>/retry/", views.JobRetry.as_view(), name="job-retry"),
    path("jobs/<id:job>/events/", views.JobEvents.as_view(), name="job-events"),
    path("techniques/", views.Techniques.as_view(), name="techniques"),
    path("workers/", views.Workers.as_view(), name="workers"),
]
