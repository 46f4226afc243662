-- An override may be for calls of one tool.
alter table override add column tool text not null default '';
