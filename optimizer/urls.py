"""Page addresses of jobs and workers."""

from django.urls import path

from optimizer import views

app_name = "optimizer"

urlpatterns = [
    path("jobs/", views.jobs, name="jobs"),
    path("jobs/new/", views.new_job, name="new-job"),
    path("jobs/<id:job>/", views.job, name="job"),
    path("jobs/<id:job>/log.txt", views.job_log, name="job-log"),
    path("jobs/<id:job>/cancel/", views.cancel, name="cancel-job"),
    path("jobs/<id:job>/retry/", views.retry, name="retry-job"),
    path("workers/", views.workers, name="workers"),
]
