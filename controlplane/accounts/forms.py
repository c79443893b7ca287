"""The forms of Settings and Activity."""

from typing import Any

from django import forms

from controlplane.accounts import selectors, services
from controlplane.accounts.access import Actor
from controlplane.accounts.models import ApiToken, Membership, Role
from controlplane.core.forms import VerbForm

_LIFETIMES = [(7, "7 days"), (30, "30 days"), (90, "90 days"), (365, "1 year")]


class NewTokenForm(VerbForm):
    """Offers the actor's own role and lower ones; a higher one that is sent all the same is the verb's to refuse."""

    name = forms.CharField(
        max_length=services.MAX_TOKEN_NAME, help_text="What it is for, such as “nightly upload”."
    )
    role = forms.ChoiceField(choices=Role.choices, initial=Role.VIEWER)
    expires_in_days = forms.TypedChoiceField(
        label="Expires in", coerce=int, choices=_LIFETIMES, initial=services.DEFAULT_TOKEN_DAYS
    )

    def __init__(self, actor: Actor, data: Any = None) -> None:
        super().__init__(data)
        self.actor = actor
        offered = [(role.value, role.label) for role in Role if actor.may(role)]
        self.fields["role"].widget.choices = offered

    def create(self) -> tuple[ApiToken, str] | None:
        return self.attempt(
            lambda: services.create_token(
                self.actor,
                name=self.cleaned_data["name"],
                role=Role(self.cleaned_data["role"]),
                expires_in_days=self.cleaned_data["expires_in_days"],
            )
        )


class NewMemberForm(VerbForm):
    username = forms.CharField(
        label="User name",
        max_length=150,
        help_text="Somebody who has an account, or a new name: then a password is made and shown once.",
    )
    role = forms.ChoiceField(choices=Role.choices, initial=Role.ENGINEER)

    def add(self, actor: Actor) -> tuple[Membership, str] | None:
        return self.attempt(
            lambda: services.add_member(
                actor, username=self.cleaned_data["username"], role=Role(self.cleaned_data["role"])
            )
        )


class RoleForm(VerbForm):
    role = forms.ChoiceField(choices=Role.choices)

    def change(self, actor: Actor, row: Membership) -> Membership | None:
        return self.attempt(lambda: services.change_role(actor, row, role=Role(self.cleaned_data["role"])))


class ActivityFilterForm(forms.Form):
    """A filter that makes no sense filters nothing out: an address that is shared must always open."""

    person = forms.ChoiceField(required=False)
    object_type = forms.ChoiceField(label="Object", required=False)
    text = forms.CharField(
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Text"}),
    )

    def __init__(self, actor: Actor, data: Any) -> None:
        super().__init__(data)
        people = [row.user.username for row in selectors.members(actor)]
        kinds = selectors.object_types(actor)
        self.fields["person"] = forms.ChoiceField(
            required=False,
            choices=[("", "Everybody"), (selectors.SLIPWAY, "Slipway"), *((name, name) for name in people)],
        )
        self.fields["object_type"] = forms.ChoiceField(
            label="Object",
            required=False,
            choices=[("", "Every object"), *((kind, kind.capitalize()) for kind in kinds)],
        )

    def wanted(self) -> selectors.ActivityFilter:
        self.is_valid()
        return selectors.ActivityFilter(**{name: self.cleaned_data.get(name, "") for name in self.fields})
