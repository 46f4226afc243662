alter table generation
  add column requested_model text not null default '',
  add column prompt_version text not null default '',
  add column attempts int not null default 1;
