-- What people should know before it costs more. `once` names what it is about and when, so that replicas raise it once.
create table alert (
  tenant_id text not null,
  id text not null,
  once text not null,
  kind text not null,
  subject text not null,
  action text not null,
  observed bigint not null,
  expected bigint not null,
  explanation text not null,
  created_at timestamptz not null,
  active_until timestamptz,
  primary key (tenant_id, id),
  unique (tenant_id, once)
);
create index alert_time_idx on alert (tenant_id, created_at, id);

alter table alert enable row level security;
alter table alert force row level security;
create policy tenant on alert using (tenant_id = nullif(current_setting('app.tenant', true), ''));
