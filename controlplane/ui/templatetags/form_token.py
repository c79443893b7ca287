"""`{% csrf_token %}` of every template: Django's field, and the team that the form is shown for.

One place, because a form that forgot the second field would act in whatever team the session has come to.
"""

from django.template import Context, Library
from django.template.defaulttags import CsrfTokenNode
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from controlplane.accounts.access import TEAM_FIELD
from controlplane.ui.context import actor_or_nobody

register = Library()


@register.simple_tag(takes_context=True)
def csrf_token(context: Context) -> SafeString:
    token = mark_safe(CsrfTokenNode().render(context))  # noqa: S308  Django's own field
    request = getattr(context, "request", None)
    actor = actor_or_nobody(request) if request is not None else None
    if actor is None:
        return token
    return format_html('{}<input type="hidden" name="{}" value="{}">', token, TEAM_FIELD, actor.team.pk)
