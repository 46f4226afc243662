"""What can go wrong between agents."""

from __future__ import annotations

from shared.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    Reason,
    ResourceExhausted,
)


class AgentNotFound(NotFound):
    """No such agent or version in this tenant."""

    reason = Reason.ERROR_REASON_AGENT_NOT_FOUND


class AgentVersionExists(AlreadyExists):
    """Versions are immutable. Choose a new one."""

    reason = Reason.ERROR_REASON_AGENT_VERSION_EXISTS


class AgentArchived(FailedPrecondition):
    """Archived agents start nothing new."""

    reason = Reason.ERROR_REASON_AGENT_ARCHIVED


class SessionNotFound(NotFound):
    """No such session in this tenant."""

    reason = Reason.ERROR_REASON_SESSION_NOT_FOUND


class SessionEnded(FailedPrecondition):
    """It takes no more signals."""

    reason = Reason.ERROR_REASON_SESSION_ENDED


class SessionStateInvalid(FailedPrecondition):
    """The signal does not fit what the session is doing."""

    reason = Reason.ERROR_REASON_SESSION_STATE_INVALID


class SequenceOutOfRange(OutOfRange):
    """The log ends before that."""

    reason = Reason.ERROR_REASON_SEQUENCE_OUT_OF_RANGE


class NameUnknown(InvalidArgument):
    """No mode or strategy of this name."""

    reason = Reason.ERROR_REASON_NAME_UNKNOWN


class LeaseLost(Aborted):
    """Another replica drives the session now."""

    reason = Reason.ERROR_REASON_LEASE_LOST


class BudgetExhausted(ResourceExhausted):
    """The money ran out. Raise the budget, or wait for its next period."""

    reason = Reason.ERROR_REASON_BUDGET_EXHAUSTED


class TaskGraphNotFound(NotFound):
    """No such task graph in this tenant."""

    reason = Reason.ERROR_REASON_TASK_GRAPH_NOT_FOUND


class GraphInvalid(InvalidArgument):
    """The graph cannot be run as it is. The facts name the fault and the path that shows it."""

    reason = Reason.ERROR_REASON_GRAPH_INVALID


class PlanInvalid(FailedPrecondition):
    """The planner's answer was no valid graph, after one repair. Plan with a stronger model, or by hand."""

    reason = Reason.ERROR_REASON_PLAN_INVALID


class TaskTimedOut(DeadlineExceeded):
    """A try of a node took longer than its timeout."""

    reason = Reason.ERROR_REASON_TASK_TIMED_OUT


class ConditionFailed(FailedPrecondition):
    """A condition or a score could not be computed."""

    reason = Reason.ERROR_REASON_CONDITION_FAILED


class TaskRejected(FailedPrecondition):
    """A validator rejected what it was given."""

    reason = Reason.ERROR_REASON_TASK_REJECTED


class TaskOutputInvalid(Aborted):
    """A node's answer is not of the form its kind demands; another try may do better."""

    reason = Reason.ERROR_REASON_TASK_OUTPUT_INVALID


class CheckpointNotFound(NotFound):
    """No such checkpoint in this tenant."""

    reason = Reason.ERROR_REASON_CHECKPOINT_NOT_FOUND


class CheckpointIncompatible(FailedPrecondition):
    """The checkpoint is of a version this mesh cannot read or upgrade."""

    reason = Reason.ERROR_REASON_CHECKPOINT_INCOMPATIBLE


class ReplayUnsupported(FailedPrecondition):
    """Only the log of agents on a topic can be run again."""

    reason = Reason.ERROR_REASON_REPLAY_UNSUPPORTED


class ForkUnsupported(FailedPrecondition):
    """Only agents on a topic can be forked. A task graph is resumed from a checkpoint."""

    reason = Reason.ERROR_REASON_FORK_UNSUPPORTED


class DocumentInvalid(InvalidArgument):
    """The document is not an exported session. The field says where."""

    reason = Reason.ERROR_REASON_DOCUMENT_INVALID
