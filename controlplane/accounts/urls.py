"""Page addresses: Settings and Activity."""

from django.urls import path

from controlplane.accounts import views

app_name = "accounts"
urlpatterns = [
    path("settings/", views.profile, name="settings"),
    path("settings/sessions/", views.end_sessions, name="end-sessions"),
    path("settings/team/", views.switch_team, name="switch-team"),
    path("settings/tokens/", views.tokens, name="tokens"),
    path("settings/tokens/<slug:token_key>/revoke/", views.revoke_token, name="revoke-token"),
    path("settings/members/", views.members, name="members"),
    path("settings/members/<str:username>/role/", views.change_role, name="change-role"),
    path("settings/members/<str:username>/remove/", views.remove_member, name="remove-member"),
    path("activity/", views.activity, name="activity"),
]
