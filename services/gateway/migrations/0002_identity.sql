alter table api_key
  add column scopes text[] not null default '{}',
  add column last_used_at timestamptz,
  add column service_account text not null default '';

-- Records of tenants belong to the platform's own tenant: row-level security then shows them to it alone.
create table tenant (
  tenant_id text not null,
  id text not null,
  display_name text not null,
  suspended boolean not null,
  requests_per_second integer not null,
  burst integer not null,
  created_at timestamptz not null,
  primary key (tenant_id, id)
);

create table app_user (
  tenant_id text not null,
  subject text not null,
  display_name text not null,
  service_account boolean not null,
  roles text[] not null,
  suspended boolean not null,
  created_at timestamptz not null,
  primary key (tenant_id, subject)
);

create table role (
  tenant_id text not null,
  name text not null,
  scopes text[] not null,
  description text not null,
  primary key (tenant_id, name)
);

create table audit_entry (
  tenant_id text not null,
  id text not null,
  created_at timestamptz not null,
  subject text not null,
  action text not null,
  target text not null,
  reason text not null,
  address text not null,
  request_id text not null,
  primary key (tenant_id, id)
);
create index audit_entry_time_idx on audit_entry (tenant_id, created_at desc, id desc);
revoke update, delete on audit_entry from agentnet_gateway;

do $$
declare
  name text;
begin
  foreach name in array array['tenant', 'app_user', 'role', 'audit_entry'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;
