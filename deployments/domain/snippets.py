"""The reader's own endpoint as lines that work when pasted: curl and Python, with an input its model takes."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from deployments.domain.example import is_short, json_body, python_body

KEY = "SLIPWAY_ENDPOINT_KEY"


def snippets(endpoint: str, signature: Mapping[str, Any], *, protected: bool) -> dict[str, str]:
    """`curl` and `python`. With `protected` both read the endpoint's key from the environment."""
    return {
        "curl": _curl(endpoint, signature, protected=protected),
        "python": _python(endpoint, signature, protected=protected),
    }


def _curl(endpoint: str, signature: Mapping[str, Any], *, protected: bool) -> str:
    key = f' -H "Authorization: Bearer ${KEY}"' if protected else ""
    head = f"curl{key} -H 'Content-Type: application/json' {shlex.quote(endpoint)}"
    if is_short(signature):
        return f"{head} \\\n  -d {shlex.quote(json.dumps(json_body(signature)))}"
    made = shlex.quote(f"import json; print(json.dumps({python_body(signature)}))")
    return f"python3 -c {made} \\\n  | {head} -d @-"


def _python(endpoint: str, signature: Mapping[str, Any], *, protected: bool) -> str:
    headers = '{"Content-Type": "application/json"'
    headers += f', "Authorization": "Bearer " + os.environ["{KEY}"]' if protected else ""
    imports = "import json, os, urllib.request" if protected else "import json, urllib.request"
    return "\n".join(
        [
            imports,
            "",
            f"body = {python_body(signature)}",
            "request = urllib.request.Request(",
            f"    {endpoint!r},",
            "    data=json.dumps(body).encode(),",
            f"    headers={headers}}},",
            ")",
            "print(json.load(urllib.request.urlopen(request))['outputs'])",
        ]
    )
