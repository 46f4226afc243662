create table checkpoint (
  tenant_id text not null,
  id text not null,
  agent_name text not null,
  run_id text not null,
  version text not null,
  data jsonb not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, id)
);
create index checkpoint_run_idx on checkpoint (tenant_id, run_id, id desc);
alter table checkpoint enable row level security;
alter table checkpoint force row level security;
create policy tenant on checkpoint using (tenant_id = nullif(current_setting('app.tenant', true), ''));
