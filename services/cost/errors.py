"""What can go wrong with money."""

from __future__ import annotations

from shared.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Reason, ResourceExhausted


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


class PriceBookInvalid(InvalidArgument):
    """The price book breaks its rules. The path names where."""

    reason = Reason.ERROR_REASON_PRICE_BOOK_INVALID


class PriceBookNotFound(NotFound):
    """No such version of the price book."""

    reason = Reason.ERROR_REASON_PRICE_BOOK_NOT_FOUND


class CostOverflow(InvalidArgument):
    """The amount is beyond what one entry of the ledger holds."""

    reason = Reason.ERROR_REASON_COST_OVERFLOW


class BudgetApprovalRequired(FailedPrecondition):
    """A soft limit that asks is passed. Approve the budget."""

    reason = Reason.ERROR_REASON_BUDGET_APPROVAL_REQUIRED
