-- What was judged, sealed, for trying rules on it. Short lived: `record_days` of the settings.
create table decision (
  tenant_id text not null,
  id text not null,
  target text not null,
  agent_name text not null,
  session_id text not null,
  allowed boolean not null,
  unchanged boolean not null,
  harmful boolean,
  sealed bytea not null,
  created_at timestamptz not null,
  primary key (tenant_id, id)
);
create index decision_time_idx on decision (tenant_id, created_at desc);
alter table decision enable row level security;
alter table decision force row level security;
create policy tenant on decision using (tenant_id = nullif(current_setting('app.tenant', true), ''));

-- Violations of bundles that are only tried are told apart.
alter table violation add column shadow boolean not null default false;
