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
    PermissionDenied,
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


class EffectUnknown(FailedPrecondition):
    """The call of a tool may have happened, and nobody can tell. It is not repeated."""

    reason = Reason.ERROR_REASON_TOOL_OUTCOME_UNKNOWN


class CheckpointNotFound(NotFound):
    """No such checkpoint in this tenant."""

    reason = Reason.ERROR_REASON_CHECKPOINT_NOT_FOUND


class CheckpointIncompatible(FailedPrecondition):
    """The checkpoint is of a version this mesh cannot read or upgrade."""

    reason = Reason.ERROR_REASON_CHECKPOINT_INCOMPATIBLE


class OptionsContradict(InvalidArgument):
    """Options of a session contradict each other. Mend the field named."""

    reason = Reason.ERROR_REASON_OPTIONS_CONTRADICT


class InputNotFound(NotFound):
    """The session waits for no such input; it may be answered already."""

    reason = Reason.ERROR_REASON_INPUT_NOT_FOUND


class TurnOutputInvalid(Aborted):
    """A turn's answer is not of the form asked for. It is asked for once more, then the session fails."""

    reason = Reason.ERROR_REASON_TURN_OUTPUT_INVALID


class IterationsExhausted(FailedPrecondition):
    """A turn called tools until its iterations ran out."""

    reason = Reason.ERROR_REASON_ITERATIONS_EXHAUSTED


class ApprovalRefused(PermissionDenied):
    """A person refused what rules of policy hold, or nobody answered in time."""

    reason = Reason.ERROR_REASON_APPROVAL_REFUSED


class SuiteInvalid(InvalidArgument):
    """The suite does not parse or breaks its shape. The metadata name the line and the path."""

    reason = Reason.ERROR_REASON_SUITE_INVALID


class EvaluationNotFound(NotFound):
    """No such evaluation in this tenant."""

    reason = Reason.ERROR_REASON_EVALUATION_NOT_FOUND


class EvaluationRunning(FailedPrecondition):
    """It has not ended. Wait for it."""

    reason = Reason.ERROR_REASON_EVALUATION_RUNNING


class ScenarioTimedOut(DeadlineExceeded):
    """The scenario's session took longer than the scenario allows."""

    reason = Reason.ERROR_REASON_SCENARIO_TIMED_OUT


class CaseGivenUp(Aborted):
    """The case broke off too often: its worker died with it again and again."""

    reason = Reason.ERROR_REASON_CASE_GIVEN_UP


class AgentFileInvalid(InvalidArgument):
    """A file of agents does not parse or breaks a rule. The message has every fault with its line."""

    reason = Reason.ERROR_REASON_AGENT_FILE_INVALID

    def __init__(self, message: str, *, line: str, path: str) -> None:
        super().__init__(message, field="document", line=line, path=path)


class AgentInputInvalid(InvalidArgument):
    """The prompt does not fit the agent's input_schema."""

    reason = Reason.ERROR_REASON_AGENT_INPUT_INVALID


class OutputInvalid(FailedPrecondition):
    """The output does not fit the agent's output_schema, and asking again did not mend it."""

    reason = Reason.ERROR_REASON_OUTPUT_INVALID


class EngineFailed(FailedPrecondition):
    """The agent's reasoning engine is not installed, or failed. Its message says which and why."""

    reason = Reason.ERROR_REASON_ENGINE_FAILED


class RelationshipNotFound(NotFound):
    """No such relationship between agents in this tenant."""

    reason = Reason.ERROR_REASON_RELATIONSHIP_NOT_FOUND


class RelationshipInvalid(FailedPrecondition):
    """The relationship would close a circle of chains, or joins an agent with itself."""

    reason = Reason.ERROR_REASON_RELATIONSHIP_INVALID


class ChainLimitReached(FailedPrecondition):
    """A chain of agents reached one of its limits. Raise the limit, or shorten the chain."""

    reason = Reason.ERROR_REASON_CHAIN_LIMIT_REACHED


class TemplateNotFound(NotFound):
    """No such template of agents, or version of it."""

    reason = Reason.ERROR_REASON_AGENT_TEMPLATE_NOT_FOUND


class NoAgentAble(FailedPrecondition):
    """No active agent can take the work. Make one with the capabilities named, or wait until one is free."""

    reason = Reason.ERROR_REASON_NO_AGENT_ABLE


class DelegationNotFound(NotFound):
    """No such delegation in this tenant."""

    reason = Reason.ERROR_REASON_DELEGATION_NOT_FOUND


class DelegationEnded(PermissionDenied):
    """The delegation was revoked, has expired, or spent its budget."""

    reason = Reason.ERROR_REASON_DELEGATION_ENDED


class DelegationTooWide(PermissionDenied):
    """A delegation asks for more than the capability it comes from."""

    reason = Reason.ERROR_REASON_DELEGATION_TOO_WIDE


class ReplayUnsupported(FailedPrecondition):
    """Only the log of agents on a topic can be run again."""

    reason = Reason.ERROR_REASON_REPLAY_UNSUPPORTED


class ForkUnsupported(FailedPrecondition):
    """Only agents on a topic can be forked. A task graph is resumed from a checkpoint."""

    reason = Reason.ERROR_REASON_FORK_UNSUPPORTED


class EffectsOff(FailedPrecondition):
    """A tool is not called in a session whose effects are off, and its origin never made this call."""

    reason = Reason.ERROR_REASON_EFFECTS_OFF


class DocumentInvalid(InvalidArgument):
    """The document is not an exported session. The field says where."""

    reason = Reason.ERROR_REASON_DOCUMENT_INVALID
