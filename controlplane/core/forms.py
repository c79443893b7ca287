"""Forms whose verb may refuse: the service's sentence stands beside the field it is about, with its status.

Refused: saying a rule twice. A form checks only shape; what is allowed is decided by the verb, for page and API.
"""

from collections.abc import Callable

from django import forms

from controlplane.core.errors import SlipwayError


class VerbForm(forms.Form):
    """`status` is the status of the page that shows the form: 200, 400, or that of what the verb refused."""

    status = 200

    def attempt[Result](self, verb: Callable[[], Result]) -> Result | None:
        """What the verb returned; None if the form or the verb refused, which the form then shows."""
        if not self.is_valid():
            self.status = 400
            return None
        try:
            return verb()
        except SlipwayError as error:
            self.refuse(error)
            return None

    def refuse(self, error: SlipwayError) -> None:
        self.status = error.status
        ours = {name: messages for name, messages in error.fields.items() if name in self.fields}
        for name, messages in ours.items():
            self.add_error(name, messages)
        if not ours:
            self.add_error(None, f"{error.title} {error.detail}".strip())
