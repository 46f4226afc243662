-- What the tools of the mesh brought in responses that go on without their caller, each call once.
create table response_call (
  tenant_id text not null,
  response_id text collate "C" not null,
  call text not null,
  outcome bytea not null,
  primary key (tenant_id, response_id, call),
  foreign key (tenant_id, response_id) references response (tenant_id, id) on delete cascade
);
alter table response_call enable row level security;
alter table response_call force row level security;
create policy tenant on response_call using (tenant_id = nullif(current_setting('app.tenant', true), ''));

-- Which responses are to be driven on, for replicas that serve all tenants. It holds ids and times and nothing of any tenant's content.
create table response_work (
  tenant_id text not null,
  id text collate "C" not null,
  due_at timestamptz not null,
  claims integer not null default 0,
  primary key (tenant_id, id),
  foreign key (tenant_id, id) references response (tenant_id, id) on delete cascade
);
create index response_work_due_idx on response_work (due_at);
alter table response_work enable row level security;
alter table response_work force row level security;
create policy worker on response_work to agentnet_gateway using (true);
