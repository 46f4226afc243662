-- Where each version is in its life; a version without a row was registered before there were states.
create table tool_state (
  tenant_id text not null,
  tool text not null,
  state text not null,
  primary key (tenant_id, tool)
);

create table tool_audit (
  tenant_id text not null,
  id text not null,
  tool text not null,
  action text not null,
  actor text not null,
  from_state text not null,
  to_state text not null,
  note text not null,
  created_at timestamptz not null,
  primary key (tenant_id, id)
);
create index tool_audit_tool_idx on tool_audit (tenant_id, tool, created_at, id);

create table tool_usage (
  tenant_id text not null,
  tool text not null,
  day date not null,
  calls bigint not null,
  primary key (tenant_id, tool, day)
);

-- A call its caller named. `step` is reserved, started or done; what is started may have happened.
create table tool_effect (
  tenant_id text not null,
  request_id text not null,
  digest bytea not null,
  invocation_id text not null,
  step text not null,
  leased_until timestamptz not null,
  outcome jsonb,
  created_at timestamptz not null,
  primary key (tenant_id, request_id)
);
create index tool_effect_created_idx on tool_effect (tenant_id, created_at);
revoke update, delete, truncate on tool_audit from agentnet_tools;

do $$
declare
  name text;
begin
  foreach name in array array['tool_state', 'tool_audit', 'tool_usage', 'tool_effect'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;
