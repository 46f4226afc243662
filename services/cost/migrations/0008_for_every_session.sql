-- Triggers are off in a session that says it is a replica; the ledger's is not.
alter table cost_event enable always trigger cost_event_is_append_only;
