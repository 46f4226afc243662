alter table generation
  add column tokens_cached_input int not null default 0,
  add column tokens_reasoning int not null default 0;
