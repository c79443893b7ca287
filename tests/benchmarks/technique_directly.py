"""A technique as its child runs it, without job, sandbox or database: prints the seconds that it took.

Runs on the technique's interpreter with the spec of `optimizer.techniques.child.run` as its argument. Importing our
own modules comes before, importing the vendor's belongs to the technique.
"""

import json
import sys
import time

from optimizer.techniques.child import run


def main(spec: str) -> None:
    began = time.perf_counter()
    run(json.loads(spec), lambda _: None)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(sys.argv[1])
