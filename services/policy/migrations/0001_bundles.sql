create table bundle (
  tenant_id text not null,
  name text not null,
  version text not null,
  digest text not null,
  document text not null,
  created_at timestamptz not null,
  primary key (tenant_id, name, version)
);

create table bundle_label (
  tenant_id text not null,
  name text not null,
  label text not null,
  version text not null,
  primary key (tenant_id, name, label),
  foreign key (tenant_id, name, version) references bundle (tenant_id, name, version)
);

create table violation (
  tenant_id text not null,
  id text not null,
  session_id text not null,
  turn_id text not null,
  agent_name text not null,
  monitor_name text not null,
  severity text not null,
  violation_type text not null,
  rationale text not null,
  meta jsonb not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, id)
);
create index violation_time_idx on violation (tenant_id, created_at, id);
create index violation_session_idx on violation (tenant_id, session_id);

-- Rises with every change of what is enforced; holds nothing of any tenant's.
create sequence enforced_revision;
select nextval('enforced_revision');
grant select, update on sequence enforced_revision to agentnet_policy;

do $$
declare
  name text;
begin
  foreach name in array array['bundle', 'bundle_label', 'violation'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;

-- Enforcement points hold every tenant's rules: rules, and nothing else, can be read (not written) for all tenants at once.
create policy every_tenant on bundle for select using (current_setting('app.tenant', true) = '*');
create policy every_tenant on bundle_label for select using (current_setting('app.tenant', true) = '*');
