-- Generations that nobody waits for: what was asked, by whom, and what came out.
create table submitted_generation (
  tenant_id text not null,
  id text not null,
  subject text not null,
  roles text[] not null,
  kind text not null,
  claim jsonb,
  request bytea not null,
  runs int not null default 0,
  succeeded boolean,
  outcome bytea,
  created_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  primary key (tenant_id, id)
);
create index submitted_generation_ended_idx on submitted_generation (tenant_id, ended_at);
alter table submitted_generation enable row level security;
alter table submitted_generation force row level security;
create policy tenant on submitted_generation using (tenant_id = nullif(current_setting('app.tenant', true), ''));

-- Which of them are to be run, for processes that serve all tenants. It holds ids, owners and times and nothing of any tenant's content.
create table generation_queue (
  tenant_id text not null,
  id text not null,
  owner text not null default '',
  fence bigint not null default 0,
  expires_at timestamptz not null default '-infinity',
  ready_at timestamptz not null default clock_timestamp(),
  primary key (tenant_id, id)
);
create index generation_queue_ready_idx on generation_queue (ready_at);
alter table generation_queue enable row level security;
alter table generation_queue force row level security;
create policy worker on generation_queue to agentnet_inference using (true);
