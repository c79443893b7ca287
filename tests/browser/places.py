"""Every kind of page, by the name that a failing test shows. Addresses in braces are fields of the stock."""

from tests.browser.stock import Stock

SIGNED_OUT = {"login": "/account/login/"}
FULL = {
    "overview": "/",
    "search": "/search/?q=shop",
    "models": "/models/",
    "models, none match": "/models/?search=nothing-is-called-this",
    "new model": "/models/new/",
    "import a model": "/models/new/import/",
    "model": "{model}",
    "describe": "{model}edit/",
    "new version": "{model}versions/new/",
    "import a version": "{model}versions/import/",
    "new data set": "{model}datasets/new/",
    "set an alias": "{model}aliases/new/",
    "gate": "{model}gate/",
    "answers": "{model}answers/",
    "ledger": "{model}ledger/",
    "delete model": "{model}delete/",
    "version": "{version}",
    "original": "{version}variants/0/",
    "variant": "{variant}",
    "jobs": "/jobs/",
    "new job": "/jobs/new/?model={model_name}&version=1",
    "job": "{job}",
    "cancelled job": "{cancelled_job}",
    "searches": "/searches/",
    "new search": "/searches/new/?model={model_name}&version=1",
    "deployments": "/deployments/",
    "new deployment": "/deployments/new/",
    "deployment": "{deployment}",
    "deployment rollouts": "{deployment}rollouts/",
    "deployment rollout": "{rollout}",
    "deployment revisions": "{deployment}revisions/",
    "plan": "{deployment}revisions/1/plan/",
    "deployment scaling": "{deployment}scaling/",
    "deployment logs": "{deployment}logs/",
    "deployment settings": "{deployment}settings/",
    "targets": "/targets/",
    "add a cluster": "/targets/new/",
    "this machine": "/targets/this-machine/",
    "cluster": "/targets/west/",
    "cluster, tested": "/targets/west/connection/",
    "metrics API": "/targets/west/metrics-api/",
    "workers": "/workers/",
    "activity": "/activity/",
    "settings": "/settings/",
    "tokens": "/settings/tokens/",
    "members": "/settings/members/",
    "change password": "/account/password/change/",
    "two-factor login": "/account/2fa/",
    "not found": "/models/no-such-model/",
}
EMPTY = [
    "overview",
    "models",
    "jobs",
    "searches",
    "deployments",
    "new deployment",
    "targets",
    "workers",
    "activity",
    "tokens",
]


def address(place: str, stock: Stock | None = None) -> str:
    path = (SIGNED_OUT | FULL)[place]
    return path.format(**vars(stock), model_name=stock.model.split("/")[2]) if stock else path
