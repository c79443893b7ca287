"""What the API of accounts takes."""

from rest_framework.serializers import ChoiceField

from controlplane.accounts.models import Role
from controlplane.accounts.services import DEFAULT_TOKEN_DAYS, MAX_TOKEN_DAYS, MAX_TOKEN_NAME
from controlplane.core.fields import StrictSerializer, Text, Whole


class NewToken(StrictSerializer):
    name = Text(max_length=MAX_TOKEN_NAME)
    role = ChoiceField(choices=Role.choices)
    expires_in_days = Whole(min_value=1, max_value=MAX_TOKEN_DAYS, default=DEFAULT_TOKEN_DAYS)


class NewMember(StrictSerializer):
    username = Text(max_length=150, trim_whitespace=False)
    role = ChoiceField(choices=Role.choices)


class MemberRole(StrictSerializer):
    role = ChoiceField(choices=Role.choices)
