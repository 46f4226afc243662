-- A turn is its message in `data`; its JSON beside that was read by nobody and cost as much as all other columns together.
alter table turn alter column raw drop not null;
comment on column turn.raw is 'the turn as JSON, of turns that ended before this migration; null since: ListTurnRecords and ListTurns have them all';
