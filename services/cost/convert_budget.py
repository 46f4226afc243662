"""Between the contract and budgets and prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from agentnet.cost.v1 import budget_service_pb2 as pb
from agentnet.cost.v1 import cost_pb2, cost_service_pb2
from agentnet.cost.v1 import price_service_pb2 as prices_pb
from services.cost.budget import Budget, Level, Limits, SoftAction, Window
from services.cost.convert import TO_ACTION, time
from services.cost.prices import PriceBook
from services.cost.store import StoredBook
from shared import fields
from shared.errors import FieldRequired, InvalidArgument
from shared.paging import Page, next_page_token, page

_MAX_MICROS: Final = 10**15
_MAX_DOCUMENT: Final = 1_000_000
_SCOPE: Final = "budgets"
_Known = TypeVar("_Known", bound=StrEnum)
_LEVELS: Final = {
    cost_pb2.BUDGET_LEVEL_UNSPECIFIED: Level.TENANT,
    cost_pb2.BUDGET_LEVEL_TENANT: Level.TENANT,
    cost_pb2.BUDGET_LEVEL_TEAM: Level.TEAM,
    cost_pb2.BUDGET_LEVEL_USER: Level.USER,
    cost_pb2.BUDGET_LEVEL_AGENT: Level.AGENT,
    cost_pb2.BUDGET_LEVEL_SESSION: Level.SESSION,
    cost_pb2.BUDGET_LEVEL_SUB_AGENT: Level.SUB_AGENT,
    cost_pb2.BUDGET_LEVEL_CREDENTIAL: Level.CREDENTIAL,
}
_TO_LEVEL: Final = {value: key for key, value in _LEVELS.items()}
_WINDOWS: Final = {
    cost_pb2.BUDGET_WINDOW_UNSPECIFIED: Window.TOTAL,
    cost_pb2.BUDGET_WINDOW_TOTAL: Window.TOTAL,
    cost_pb2.BUDGET_WINDOW_HOUR: Window.HOUR,
    cost_pb2.BUDGET_WINDOW_DAY: Window.DAY,
    cost_pb2.BUDGET_WINDOW_MONTH: Window.MONTH,
}
_TO_WINDOW: Final = {value: key for key, value in _WINDOWS.items()}
_ACTIONS: Final = {value: key for key, value in TO_ACTION.items()} | {
    cost_pb2.SOFT_ACTION_UNSPECIFIED: SoftAction.ALERT
}


def which(request: cost_service_pb2.GetBudgetRequest) -> tuple[Level, str, Window]:
    """The level, name and window of a budget."""
    level = _level(request.level)
    return level, _name(request.name, level), window(request.window)


def limits(request: cost_service_pb2.SetBudgetRequest) -> Limits:
    limit = int(fields.within(request.limit_micros_usd, "limit_micros_usd", low=0, high=_MAX_MICROS))
    level = _level(request.level)
    if level is Level.CREDENTIAL:
        raise InvalidArgument("a credential has the budget it was made with; make another one", field="level")
    soft = int(fields.within(request.soft_limit_micros_usd, "soft_limit_micros_usd", low=0, high=limit))
    action = _one_of(request.soft_action, _ACTIONS, "soft_action")
    if action is not SoftAction.ALERT and not soft:
        message = f"soft_limit_micros_usd is required: without it {action} is never done"
        raise InvalidArgument(message, field="soft_limit_micros_usd")
    return Limits(
        limit=limit,
        level=level,
        name=_name(request.name, level),
        window=window(request.window),
        soft_limit=soft,
        soft_action=action,
    )


def listing(request: pb.ListBudgetsRequest) -> Page:
    return page(request.page_size, request.page_token, scope=_SCOPE)


def approved(request: pb.ApproveBudgetRequest) -> tuple[str, str]:
    """The budget's id and the name of the part."""
    return budget_id(request.id), fields.text(request.name, "name", limit=255)


def budget_id(value: str) -> str:
    return fields.identifier(value, "id")


def list_response(found: Sequence[Budget], asked: Page, now: datetime) -> pb.ListBudgetsResponse:
    shown = found[: asked.size]
    more = (str(asked.skip + len(shown)),) if len(found) > len(shown) else None
    return pb.ListBudgetsResponse(
        budgets=[budget(one, now) for one in shown], next_page_token=next_page_token(more, scope=_SCOPE)
    )


def approve_response(ends_at: datetime | None) -> pb.ApproveBudgetResponse:
    return pb.ApproveBudgetResponse(expire_time=time(ends_at) if ends_at else None)


def budget(found: Budget, now: datetime) -> cost_pb2.Budget:
    began, ends = found.limits.window.bounds(now)
    return cost_pb2.Budget(
        id=found.id,
        limit_micros_usd=found.limits.limit,
        settled_micros_usd=found.settled,
        leased_micros_usd=found.leased,
        update_time=time(found.updated_at),
        level=_TO_LEVEL[found.limits.level],
        name=found.name,
        window=_TO_WINDOW[found.limits.window],
        soft_limit_micros_usd=found.limits.soft_limit,
        soft_action=TO_ACTION[found.limits.soft_action],
        window_start_time=time(began) if ends else None,
        window_end_time=time(ends) if ends else None,
    )


def document(request: prices_pb.ImportPricesRequest) -> str:
    return fields.required(request.document, "document", limit=_MAX_DOCUMENT)


def import_response(book: PriceBook) -> prices_pb.ImportPricesResponse:
    return prices_pb.ImportPricesResponse(
        version=book.version, prices=sum(len(dates) for dates in book.entries.values())
    )


def version(request: prices_pb.GetPriceBookRequest) -> str:
    return fields.text(request.version, "version", limit=64)


def book_response(book: StoredBook) -> prices_pb.GetPriceBookResponse:
    return prices_pb.GetPriceBookResponse(
        version=book.version, document=book.document, create_time=time(book.created_at)
    )


def window(value: cost_pb2.BudgetWindow.ValueType) -> Window:
    return _one_of(value, _WINDOWS, "window")


def _level(value: cost_pb2.BudgetLevel.ValueType) -> Level:
    return _one_of(value, _LEVELS, "level")


def _one_of(value: Any, known: Mapping[Any, _Known], field: str) -> _Known:
    if value not in known:
        raise InvalidArgument(f"{field} is one of {', '.join(dict.fromkeys(map(str, known.values())))}", field=field)
    return known[value]


def _name(value: str, level: Level) -> str:
    name = fields.text(value, "name", limit=255)
    if level is Level.TENANT and name:
        raise InvalidArgument("the tenant's budget has no name", field="name")
    if level is not Level.TENANT and not name.strip():
        raise FieldRequired("name")
    if name != name.strip():
        raise InvalidArgument("name must not begin or end with white space: nothing is called so", field="name")
    return name
