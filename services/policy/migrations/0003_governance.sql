-- Excuses from rules, and the trail of what was done.
create table override (
  tenant_id text not null,
  id text not null,
  rules text[] not null,
  agent_name text not null,
  session_id text not null,
  reason text not null,
  issued_by text not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  revoked_at timestamptz,
  uses bigint not null default 0,
  primary key (tenant_id, id)
);

create table audit_entry (
  tenant_id text not null,
  sequence bigint not null,
  actor text not null,
  act text not null,
  subject text not null,
  detail jsonb not null,
  created_at timestamptz not null,
  seal text not null,
  primary key (tenant_id, sequence)
);
create index audit_entry_time_idx on audit_entry (tenant_id, created_at);

-- What is older than the hot time: the same rows, out of the way of the hot ones.
create table audit_archive (like audit_entry including all);

-- Where each tenant's chain stands; locked while an entry is added, so that sequences have no gap.
create table audit_head (
  tenant_id text primary key,
  sequence bigint not null,
  seal text not null
);

do $$
declare
  name text;
begin
  foreach name in array array['override', 'audit_entry', 'audit_archive', 'audit_head'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;

-- Entries are written once; only archiving takes them out of the hot table.
revoke update on audit_entry, audit_archive from agentnet_policy;
revoke delete on audit_archive from agentnet_policy;
