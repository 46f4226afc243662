create table generation (
  tenant_id text not null,
  id text not null,
  session_id text not null,
  agent_name text not null,
  provider text not null,
  model text not null,
  outcome text not null,
  tokens_input int not null,
  tokens_output int not null,
  estimated boolean not null,
  started_at timestamptz not null,
  ended_at timestamptz not null,
  primary key (tenant_id, id)
);
create index generation_session_idx on generation (tenant_id, session_id);

alter table generation enable row level security;
alter table generation force row level security;
create policy tenant on generation using (tenant_id = nullif(current_setting('app.tenant', true), ''));
