-- Events of risks, what is done about them, and who may call which tool.
create table risk_event (
  tenant_id text not null,
  id text not null,
  risk text not null,
  value double precision not null,
  agent_name text not null,
  session_id text not null,
  detail jsonb not null,
  created_at timestamptz not null,
  primary key (tenant_id, id)
);
create index risk_event_time_idx on risk_event (tenant_id, risk, created_at);

create table risk_mitigation (
  tenant_id text not null,
  id text not null,
  risk text not null,
  text text not null,
  owner text not null,
  created_at timestamptz not null,
  primary key (tenant_id, id)
);

create table enforcement_rule (
  tenant_id text not null,
  name text not null,
  risk text not null,
  threshold double precision not null,
  window_span interval not null,
  action text not null,
  target_kind text not null,
  hold_span interval not null,
  enabled boolean not null,
  primary key (tenant_id, name)
);

create table enforcement_action (
  tenant_id text not null,
  id text not null,
  rule text not null,
  risk text not null,
  action text not null,
  target_kind text not null,
  target text not null,
  value double precision not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  primary key (tenant_id, id)
);
create index enforcement_action_target_idx on enforcement_action (tenant_id, rule, target, expires_at);

create table tool_permission (
  tenant_id text not null,
  tool text not null,
  roles text[] not null,
  agents text[] not null,
  primary key (tenant_id, tool)
);

do $$
declare
  name text;
begin
  foreach name in array array['risk_event', 'risk_mitigation', 'enforcement_rule', 'enforcement_action', 'tool_permission']
  loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;

revoke update, delete on risk_event, enforcement_action from agentnet_policy;
