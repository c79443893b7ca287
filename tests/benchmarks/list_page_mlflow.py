"""MLflow's registry as the list page's peer: a search for 50 versions of one model, of as many as the product has.

Its own server with one worker, on the same Postgres, in an environment of its own. It asks for no token. MLflow is at
https://github.com/mlflow/mlflow, 3.17 (Apache-2.0).
"""

import base64
import json
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg

from tests.benchmarks import peers
from tests.benchmarks.installation import Installation, Running
from tests.benchmarks.list_page_rows import MODEL, OTHERS, VERSIONS

PACKAGES = ("mlflow==3.17.2", "psycopg[binary]==3.3.9")
DATABASE = "mlflow"
FILL = """
INSERT INTO registered_models (name, creation_time, last_updated_time) VALUES (%(name)s, 1, 1);
INSERT INTO model_versions (name, version, creation_time, last_updated_time, user_id, current_stage, source, run_id,
                            status, storage_location)
SELECT %(name)s, n, n, n, 'mine', 'None', 'runs:/' || n || '/model', md5(n::text), 'READY', 'artifacts/' || n
FROM generate_series(1, %(count)s::int) AS n;
"""


def start(place: Installation, *, port: int) -> Running:
    """Raises PeerMissing where it cannot be had."""
    python = peers.environment("mlflow", PACKAGES)
    with psycopg.connect(place.servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {DATABASE}")
    parts = urlsplit(place.servers.database_url)
    url = urlunsplit(parts._replace(path=f"/{DATABASE}"))
    peers.last_words([str(python), "-m", "mlflow", "db", "upgrade", url])
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        for name, count in ((MODEL, VERSIONS), ("theirs", OTHERS)):
            connection.execute(FILL, {"name": name, "count": count})
        connection.execute("VACUUM ANALYZE")
    argv = (str(python), "-m", "mlflow", "server", "--backend-store-uri", url, "--workers", "1")
    where = (
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--default-artifact-root",
        str(place.home / "mlflow"),
    )
    return place.start(*argv, *where, name="mlflow").listens(port)


def path(skipped: int) -> str:
    """Its pages are told by how many versions come before them."""
    token = base64.b64encode(json.dumps({"offset": skipped}).encode()).decode()
    asked = f"filter={quote(f"name='{MODEL}'")}&order_by={quote('version_number DESC')}"
    return f"/api/2.0/mlflow/model-versions/search?{asked}&max_results=50&page_token={quote(token)}"
