"""What the list page is measured on: 20,000 versions of one model, and another team's beside them.

Run as a child of the installation, under the peer's settings, because the peer's token is made here too.
Prints both tokens and the newest version's id as JSON.
"""

import json
import sys

from django.core.management import call_command

import tests.benchmarks.list_page_stock  # noqa: F401  sets Django up

VERSIONS = 20_000
OTHERS = 5_000
BATCH = 5_000
MODEL = "ranker"


def main() -> None:
    from django.db import connection
    from rest_framework.authtoken.models import Token

    from controlplane.accounts.models import ApiToken, Role
    from tests.factories import member, model, team

    call_command("migrate", "authtoken", verbosity=0)
    mine, theirs = member(team("mine")), member(team("theirs"), role=Role.ADMIN)
    _versions(model(theirs.team, MODEL), theirs.user, OTHERS, first_artifact=VERSIONS)
    last = _versions(model(mine.team, MODEL), mine.user, VERSIONS, first_artifact=0)
    _, text = ApiToken.objects.create(user=mine.user, team=mine.team, role=mine.role, name="bench")
    stock = Token.objects.create(user=mine.user)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    json.dump({"token": str(text), "stock_token": stock.key, "last_id": last}, sys.stdout)


def _versions(model: object, user: object, count: int, *, first_artifact: int) -> int:
    """The id of the last version made."""
    from controlplane.registry.models import Artifact, Version
    from tests.factories import SIGNATURE

    artifacts = Artifact.objects.bulk_create(
        [Artifact(sha256=f"{first_artifact + n:064x}", size_bytes=1_000_000 + n) for n in range(count)],
        batch_size=BATCH,
    )
    made = Version.objects.bulk_create(
        [
            Version(
                model=model,
                number=number,
                source_filename=f"ranker-{number}.onnx",
                source_sha256=artifact.sha256,
                source_bytes=artifact.size_bytes,
                artifact=artifact,
                signature=SIGNATURE,
                summary={"parameters": 5_500_000, "opset": 17, "operators": {"Gemm": 4, "Relu": 3}},
                created_by=user,
            )
            for number, artifact in enumerate(artifacts, start=1)
        ],
        batch_size=BATCH,
    )
    return int(made[-1].pk)


if __name__ == "__main__":
    main()
