"""What can go wrong with money."""

from __future__ import annotations

from shared.errors import AlreadyExists, FailedPrecondition, NotFound, Reason, ResourceExhausted


class PriceNotFound(FailedPrecondition):
    """The price book does not have the model. Add a price."""

    reason = Reason.ERROR_REASON_PRICE_NOT_FOUND


class BudgetExhausted(ResourceExhausted):
    """The tenant may not spend more. Raise the budget."""

    reason = Reason.ERROR_REASON_BUDGET_EXHAUSTED


class BudgetNotFound(NotFound):
    """No budget is set; spending is not limited."""

    reason = Reason.ERROR_REASON_BUDGET_NOT_FOUND


class LeaseNotFound(NotFound):
    """No money is set aside for this generation."""

    reason = Reason.ERROR_REASON_LEASE_NOT_FOUND


class SettledDifferently(AlreadyExists):
    """The generation was settled with other numbers."""

    reason = Reason.ERROR_REASON_SETTLED_DIFFERENTLY
