create table tool (
  tenant_id text not null,
  name text not null,
  version text not null,
  definition jsonb not null,
  created_at timestamptz not null,
  primary key (tenant_id, name, version)
);

create table tool_invocation (
  tenant_id text not null,
  id text not null,
  tool text not null,
  agent_name text not null,
  subject text not null,
  session_id text not null,
  turn_id text not null,
  arguments_digest bytea not null,
  status text not null,
  isolation text not null,
  elapsed interval not null,
  created_at timestamptz not null,
  primary key (tenant_id, id)
);
create index tool_invocation_tool_idx on tool_invocation (tenant_id, tool, created_at desc);
revoke update, delete, truncate on tool, tool_invocation from agentnet_tools;

do $$
declare
  name text;
begin
  foreach name in array array['tool', 'tool_invocation'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;
