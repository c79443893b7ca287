"""The duty of accounts: forget what let people in once and does so no more."""

from controlplane.accounts.services import forget_what_expired
from controlplane.core.dispatcher import Duty

DUTIES = (Duty(name="forget expired tokens and sessions", run=forget_what_expired, every_s=3600),)
