-- What happened in the logs and was not followed up yet: written in the transaction of the event, taken at least once.
create table happening (
  id bigint generated always as identity primary key,
  tenant_id text not null,
  session_id text not null,
  sequence bigint not null,
  kind text not null
);

create function note_happenings() returns trigger language plpgsql as $$
begin
  insert into happening (tenant_id, session_id, sequence, kind)
    select f.tenant_id, f.session_id, f.sequence, f.kind from fresh f
    where f.kind in ('session_started', 'turn_finished', 'turn_interrupted', 'task_finished', 'task_interrupted',
      'monitor_verdict', 'tool_finished', 'handed_off', 'signal_received', 'session_finished')
    order by f.sequence;
  return null;
end $$;
create trigger happening_note after insert on event
  referencing new table as fresh for each statement execute function note_happenings();

create table agent_execution (
  tenant_id text not null,
  id text not null,
  agent_name text not null,
  agent text not null,
  session_id text not null,
  success boolean not null,
  reason text not null,
  ended_at timestamptz not null,
  latency_seconds double precision not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  cost_micros_usd bigint not null,
  uses_tools boolean not null,
  data bytea not null,
  primary key (tenant_id, id)
);
create index agent_execution_time_idx on agent_execution (tenant_id, agent_name, ended_at desc, id desc);

create table reasoning_tree (
  tenant_id text not null,
  turn_id text not null,
  session_id text not null,
  ended_at timestamptz not null,
  data bytea not null,
  primary key (tenant_id, turn_id)
);
create index reasoning_tree_session_idx on reasoning_tree (tenant_id, session_id, ended_at desc);

-- Evidence for and against an agent, by where it comes from; both sums fade, and are as of updated_at.
create table agent_evidence (
  tenant_id text not null,
  agent_name text not null,
  source text not null,
  positive double precision not null,
  negative double precision not null,
  count bigint not null,
  updated_at timestamptz not null,
  primary key (tenant_id, agent_name, source)
);

-- Judgements as they were given; the id makes each count once.
create table agent_rating (
  tenant_id text not null,
  id text not null,
  agent_name text not null,
  source text not null,
  score double precision not null,
  weight double precision not null,
  subject text not null,
  note text not null,
  rater text not null,
  created_at timestamptz not null,
  primary key (tenant_id, id)
);
create index agent_rating_agent_idx on agent_rating (tenant_id, agent_name, created_at desc);

create table agent_relationship (
  tenant_id text not null,
  id text not null,
  source text not null,
  target text not null,
  kind text not null,
  priority int not null,
  data bytea not null,
  primary key (tenant_id, id),
  unique (tenant_id, source, target, kind)
);
create index agent_relationship_target_idx on agent_relationship (tenant_id, target);

create table agent_template (
  tenant_id text not null,
  name text not null,
  version text not null,
  domain text not null,
  data bytea not null,
  primary key (tenant_id, name, version)
);

-- How often a template was used, those of the mesh too.
create table agent_template_use (
  tenant_id text not null,
  name text not null,
  version text not null,
  uses bigint not null,
  primary key (tenant_id, name, version)
);

create table delegation (
  tenant_id text not null,
  id text not null,
  parent_id text not null,
  agent_name text not null,
  session_id text not null,
  conversation_id text not null,
  state int not null,
  budget_micros_usd bigint not null,
  cost_micros_usd bigint not null,
  request_id text,
  data bytea not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  primary key (tenant_id, id)
);
create unique index delegation_request_idx on delegation (tenant_id, request_id) where request_id is not null;
create unique index delegation_session_idx on delegation (tenant_id, session_id);
create index delegation_parent_idx on delegation (tenant_id, parent_id);
create index delegation_time_idx on delegation (tenant_id, created_at desc, id desc);
create index delegation_load_idx on delegation (tenant_id, agent_name) where state = 1;
create index delegation_conversation_idx on delegation (tenant_id, conversation_id, created_at desc);

do $$
declare
  name text;
begin
  foreach name in array array['happening', 'agent_execution', 'reasoning_tree', 'agent_evidence', 'agent_rating',
    'agent_relationship', 'agent_template', 'agent_template_use', 'delegation'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;

-- The driver's role sees that something happened in all tenants, and no content.
grant select, update, delete on happening to agentnet_orchestrator_driver;
create policy driver on happening to agentnet_orchestrator_driver using (true);
