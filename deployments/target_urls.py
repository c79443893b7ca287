"""Page addresses of targets, below /targets/."""

from django.urls import path

from deployments.views import imports, metrics_api, targets

app_name = "targets"
ONE = "<name:name>/"

urlpatterns = [
    path("", targets.targets, name="targets"),
    path("new/", targets.new, name="new"),
    path("rights.yaml", targets.rights_yaml, name="rights"),
    path(ONE, targets.target, name="target"),
    path(ONE + "connection/", targets.connection, name="connection"),
    path(ONE + "settings/", targets.change, name="change"),
    path(ONE + "kubeconfig/", targets.replace_kubeconfig, name="kubeconfig"),
    path(ONE + "remove/", targets.remove, name="remove"),
    path(ONE + "import/", imports.importable, name="imports"),
    path(ONE + "import/<str:source>/", imports.one, name="import"),
    path(ONE + "metrics-api/", metrics_api.metrics_api, name="metrics-api"),
]
