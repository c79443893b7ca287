"""One side of the comparison, open, and whose fault it is when it cannot answer."""

from collections.abc import Callable
from dataclasses import dataclass

from optimizer.workbench.formats import Session
from optimizer.workbench.session import first_line, pass_on
from optimizer.workbench.signature import Array, Feed


@dataclass(frozen=True, kw_only=True)
class Subject:
    session: Session
    outputs: tuple[str, ...]

    def run(self, feed: Feed) -> dict[str, Array]:
        return dict(zip(self.outputs, self.session.run(list(self.outputs), feed), strict=True))

    def guarded(self, refusal: Callable[[str], Exception]) -> Callable[[Feed], dict[str, Array]]:
        """`run` that raises `refusal` of the runtime's first line where that fails."""

        def run(feed: Feed) -> dict[str, Array]:
            try:
                return self.run(feed)
            except Exception as error:  # the runtimes' exceptions share no base class but Exception
                pass_on(error)
                raise refusal(first_line(error)) from error

        return run
