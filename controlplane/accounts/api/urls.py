"""The API addresses of accounts, below /api/v1/."""

from django.urls import path

from controlplane.accounts.api import views

urlpatterns = [
    path("me/", views.Me.as_view(), name="me"),
    path("tokens/", views.Tokens.as_view(), name="tokens"),
    path("tokens/<slug:token_key>/", views.Token.as_view(), name="token"),
    path("members/", views.Members.as_view(), name="members"),
    path("members/<str:username>/", views.Member.as_view(), name="member"),
    path("activity/", views.Activity.as_view(), name="activity"),
]
