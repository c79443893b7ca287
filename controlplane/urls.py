"""Every address of the product.

Of allauth only what works without a mail server. Refused: its whole list, whose pages of password resets and e-mail
addresses fail after they have written.
"""

from allauth.account import views as account
from django.urls import include, path

from controlplane.ui import errors

ACCOUNT = [
    path("login/", account.login, name="account_login"),
    path("logout/", account.logout, name="account_logout"),
    path("inactive/", account.account_inactive, name="account_inactive"),
    path("password/change/", account.password_change, name="account_change_password"),
    path("reauthenticate/", account.reauthenticate, name="account_reauthenticate"),
    path("2fa/", include("allauth.mfa.urls")),
]

urlpatterns = [
    path("", include("controlplane.ui.urls")),
    path("models/", include("controlplane.registry.urls")),
    path("", include("optimizer.urls")),
    path("deployments/", include("deployments.urls")),
    path("pull/", include("deployments.api.pull")),
    path("targets/", include("deployments.target_urls")),
    path("", include("controlplane.accounts.urls")),
    path("account/", include(ACCOUNT)),
    path("api/v1/", include("controlplane.api")),
]

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler429 = errors.too_many  # allauth's name
handler500 = errors.server_error
